package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	statusPath    = "/api/v1/node/putstatus"
	statusServer  = "status-server" // makes this program a peer of the head
	statusAddress = "127.0.0.1:8082"
	statusSpan    = 2 * time.Second
	statusClients = 64
)

// statusBody is what is put: about what a node reports.
var statusBody = `{"status":{"load_avg":[0.12,0.34,0.56],"ram_free":123456789,"uptime":987654.32,"kernel":"6.1.0-18-amd64","distro":"Debian GNU/Linux 12","users":[],"disks":{"/":{"size_kib":102400000,"free_kib":51200000}},"network":{"eth0":{"rx_bytes":1234567890,"tx_bytes":987654321}}}}`

// statuses puts statuses of nodes at a head beside which agents are idle, and
// at servers that do no more than keep them.
func (f *fleetBed) statuses(ctx context.Context, s settings) (figures []figure, err error) {
	s.log.Info("statuses are put, at the head and at others in turn")
	head := strings.TrimPrefix(f.head.URL, "http://")
	var ours, plain, worst []float64
	for range fleetRepeats {
		rate, p99, err := f.put(ctx, head)
		if err != nil {
			return nil, err
		}
		ours, worst = append(ours, rate), append(worst, p99)
		if rate, err = f.peer(ctx, "map"); err != nil {
			return nil, err
		}
		plain = append(plain, rate)
	}
	stored, err := f.peer(ctx, "bbolt")
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("putstatus, %d connections, %d idle beside: ", statusClients, f.nodes)
	of := fmt.Sprintf("(%.0f/s against %.0f/s)", median(ours), median(plain))
	return []figure{
		{what + "net/http + encoding/json + map's rate, the head's of it", "≥ 1.5 ×", fmt.Sprintf("%.2f × %s", median(ours)/median(plain), of), median(ours) >= 1.5*median(plain)},
		atMost(what+"99 % within", 20, median(worst), "ms", "of "+spread(worst)),
		atLeast(what+"a bbolt update each's rate, the head's of it", 20, median(ours)/stored, "×"),
	}, nil
}

// peer is the rate of a server that keeps statuses in memory or in bbolt.
func (f *fleetBed) peer(ctx context.Context, keep string) (rate float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := f.network.Command(self, statusServer, keep, filepath.Join(f.dir, "peer.db"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop(cmd)) }()
	if err := f.waitFor(ctx, statusAddress); err != nil {
		return 0, err
	}
	rate, _, err = f.put(ctx, statusAddress)
	return rate, err
}

// put loads a server, each connection from another node's address, and gives
// its rate and within how many milliseconds 99 % of the answers came.
func (f *fleetBed) put(ctx context.Context, host string) (rate, p99 float64, err error) {
	var mu sync.Mutex
	var took []float64
	failed := make([]error, statusClients)
	var all sync.WaitGroup
	addr := netip.MustParseAddr(fleetFirst)
	begin := time.Now()
	for i := range statusClients {
		from := addr
		addr = addr.Next()
		all.Go(func() {
			mine, err := f.putFrom(ctx, from, host, begin.Add(statusSpan))
			mu.Lock()
			defer mu.Unlock()
			took, failed[i] = append(took, mine...), err
		})
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil || len(took) == 0 {
		return 0, 0, fmt.Errorf("putting statuses: %w", err)
	}
	slices.Sort(took)
	return float64(len(took)) / time.Since(begin).Seconds(), took[len(took)*99/100], nil
}

func (f *fleetBed) putFrom(ctx context.Context, from netip.Addr, host string, until time.Time) (took []float64, err error) {
	var conn net.Conn
	err = f.network.Inside(func() (err error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		conn, err = d.DialContext(ctx, "tcp", host)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := newClient(conn, "", host)
	for time.Now().Before(until) && ctx.Err() == nil {
		begin := time.Now()
		if _, err := c.call(http.MethodPut, statusPath, statusBody); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(begin).Microseconds())/1000)
	}
	return took, ctx.Err()
}

// serveStatus is the peer: it decodes each status and keeps it, in a map or in
// a transaction of its own, until ctx ends.
func serveStatus(ctx context.Context, keep, file string) error {
	var mu sync.Mutex
	all := map[string]map[string]any{}
	put := func(who string, status map[string]any) error {
		mu.Lock()
		defer mu.Unlock()
		all[who] = status
		return nil
	}
	if keep == "bbolt" {
		db, err := bolt.Open(file, 0o600, nil)
		if err != nil {
			return err
		}
		defer db.Close()
		put = func(who string, status map[string]any) error {
			raw, err := json.Marshal(status)
			if err != nil {
				return err
			}
			return db.Update(func(tx *bolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists([]byte("status"))
				if err != nil {
					return err
				}
				return b.Put([]byte(who), raw)
			})
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT "+statusPath, func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Status map[string]any `json:"status"`
		}
		who, _, err := net.SplitHostPort(r.RemoteAddr)
		if err == nil {
			err = json.NewDecoder(r.Body).Decode(&body)
		}
		if err == nil {
			err = put(who, body.Status)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"success": true})
	})
	srv := &http.Server{Addr: statusAddress, Handler: mux}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}
