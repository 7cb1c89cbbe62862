package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster/scripts/lab"
)

// swarm is nodes that pull one image at once, each in a network namespace, on
// links that are all as fast as the head's.
type swarm struct {
	network *lab.Network
	head    *lab.Head
	agent   string
	dir     string
	ram     string // where the nodes have what they pull: diskless ones have it in RAM
	image   string // a squashfs
	size    float64
	rate    int // Mbit/s
	nodes   []string

	mu     sync.Mutex
	effort time.Duration // of the processors, for what the nodes ran since it was set to 0
}

const (
	swarmNodes = 16
	lossy      = "numgen random mod 2 0 drop" // half of all packets
)

func measureSwarm(ctx context.Context, s settings) (figures []figure, err error) {
	if s.program, err = filepath.Abs(s.program); err != nil {
		return nil, err
	}
	b, err := newBed(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	w := &swarm{network: b.network, head: b.head, agent: filepath.Join(filepath.Dir(s.program), "muster-agent"), dir: b.dir, rate: s.rate}
	if w.ram, err = os.MkdirTemp("/dev/shm", "muster-bench-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(w.ram)) }()
	defer func() { err = errors.Join(err, w.head.Stop()) }()
	defer w.close(ctx)
	for _, part := range []func() error{func() error { return w.makeImage(ctx, s.image) }, func() error { return w.makeNodes(ctx) }} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	ideal := w.size * 8 / float64(s.rate) / 1e6
	what := fmt.Sprintf("%d nodes, %.0f MiB, %d Mbit/s", swarmNodes, w.size/(1<<20), s.rate)
	s.log.Info("the nodes pull", "ideal seconds", ideal)
	before := w.sent()
	w.effort = 0
	seconds, err := w.pull(ctx, "all", w.nodes)
	if err != nil {
		return nil, err
	}
	worst := quantile(seconds, 0.99)
	figures = append(figures,
		atMost("swarm: "+what+", 99 % have it, of size/rate", 1.3, worst/ideal, "×", fmt.Sprintf("of %s s, %d processors busy for %.1f s each", spread(seconds), runtime.NumCPU(), w.effort.Seconds()/float64(runtime.NumCPU()))),
		atMost("swarm: sent by the head, of the image", 1.5, (w.sent()-before)/w.size, "×", ""))

	s.log.Info("the same, where one drops half of its packets", "seconds", spread(seconds), "processors", w.effort.String())
	if err := w.loss(ctx, w.nodes[0]); err != nil {
		return figures, err
	}
	early, cancel := context.WithCancel(ctx)
	var late sync.WaitGroup
	late.Go(func() { w.pull(early, "lossy", w.nodes[:1]) }) // how it fares is its own affair
	seconds, err = w.pull(ctx, "others", w.nodes[1:])
	cancel()
	late.Wait()
	if err != nil {
		return figures, err
	}
	figures = append(figures, atMost("swarm: one drops half its packets, the others have it, of those before", 1.15, quantile(seconds, 0.99)/worst, "×", "of "+spread(seconds)+" s"))
	if _, err := w.command(ctx, w.nodes[0], "nft", "flush", "ruleset"); err != nil {
		return figures, err
	}

	s.log.Info("the same from nginx")
	slow, err := w.nginx(ctx)
	if err != nil {
		return figures, err
	}
	return append(figures, atLeast("swarm: nginx's time, of the swarm's (99 %)", 10, quantile(slow, 0.99)/worst, "×")), nil
}

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(math.Ceil(q*float64(len(sorted))))-1]
}

func (w *swarm) makeImage(ctx context.Context, mib int) error {
	tree := filepath.Join(w.dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	content := make([]byte, 1<<20)
	for i := range mib {
		rand.Read(content)
		if err := os.WriteFile(filepath.Join(tree, strconv.Itoa(i)), content, 0o644); err != nil {
			return err
		}
	}
	w.image = filepath.Join(w.dir, "image")
	if err := lab.Run(ctx, exec.Command("mksquashfs", tree, w.image, "-quiet", "-no-progress", "-no-fragments", "-comp", "zstd", "-Xcompression-level", "3")); err != nil {
		return err
	}
	info, err := os.Stat(w.image)
	if err != nil {
		return err
	}
	w.size = float64(info.Size())
	_, err = w.head.CLI(ctx, "image", "import", "bench", w.image)
	return err
}

// makeNodes makes the namespaces, their links, and the nodes at the head.
func (w *swarm) makeNodes(ctx context.Context) error {
	first := lab.HeadAddress.Addr()
	for range 10 {
		first = first.Next()
	}
	if _, err := w.head.CLI(ctx, "net", "create", "bench", "--first-ip", first.String(), "--ip-count", strconv.Itoa(swarmNodes), "--mask-bits", "24"); err != nil {
		return err
	}
	if err := w.shape(ctx, w.network.Name, lab.Bridge); err != nil {
		return err
	}
	addr := first
	for i := range swarmNodes {
		if _, err := w.head.CLI(ctx, "node", "create", "--mac", fmt.Sprintf("52:54:00:00:01:%02x", i)); err != nil {
			return err
		}
		ns, link := fmt.Sprintf("%s-%d", w.network.Name, i), fmt.Sprintf("node%d", i)
		w.nodes = append(w.nodes, ns)
		for _, line := range []string{
			"netns add " + ns,
			"-n " + w.network.Name + " link add " + link + " type veth peer name eth0 netns " + ns,
			"-n " + w.network.Name + " link set " + link + " master " + lab.Bridge + " up",
			"-n " + ns + " link set lo up",
			"-n " + ns + " link set eth0 up",
			"-n " + ns + " address add " + addr.String() + "/24 dev eth0",
		} {
			if err := lab.Run(ctx, exec.Command("ip", strings.Fields(line)...)); err != nil {
				return err
			}
		}
		if err := errors.Join(w.shape(ctx, w.network.Name, link), w.shape(ctx, ns, "eth0")); err != nil {
			return err
		}
		addr = addr.Next()
	}
	return nil
}

// shape bounds what a link sends.
func (w *swarm) shape(ctx context.Context, ns, link string) error {
	return lab.Run(ctx, exec.Command("tc", "-n", ns, "qdisc", "add", "dev", link, "root", "tbf", "rate", fmt.Sprintf("%dmbit", w.rate), "burst", "128k", "latency", "50ms"))
}

func (w *swarm) loss(ctx context.Context, ns string) error {
	if _, err := w.command(ctx, ns, "nft", "add table inet loss"); err != nil {
		return err
	}
	for _, hook := range []string{"input", "output"} {
		if _, err := w.command(ctx, ns, "nft", "add chain inet loss "+hook+" { type filter hook "+hook+" priority 0 ; }"); err != nil {
			return err
		}
		if _, err := w.command(ctx, ns, "nft", "add rule inet loss "+hook+" "+lossy); err != nil {
			return err
		}
	}
	return nil
}

// command runs one inside a node's namespace.
func (w *swarm) command(ctx context.Context, ns, name string, args ...string) ([]byte, error) {
	var errs strings.Builder
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns, name}, args...)...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if cmd.ProcessState != nil {
		w.mu.Lock()
		w.effort += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		w.mu.Unlock()
	}
	if err != nil {
		err = fmt.Errorf("%s in %s: %w: %s", name, ns, err, errs.String())
	}
	return out, err
}

// each runs something on nodes at once, and gives the seconds that each says.
func (w *swarm) each(nodes []string, run func(ns string) (float64, error)) ([]float64, error) {
	seconds, failed := make([]float64, len(nodes)), make([]error, len(nodes))
	var all sync.WaitGroup
	for i, ns := range nodes {
		all.Go(func() { seconds[i], failed[i] = run(ns) })
	}
	all.Wait()
	return seconds, errors.Join(failed...)
}

// pull has nodes pull at once. What they got is compared when all are done, so
// that the comparing takes no time from those that are not.
func (w *swarm) pull(ctx context.Context, round string, nodes []string) ([]float64, error) {
	into := func(ns string) string { return filepath.Join(w.ram, round+"-"+ns) }
	defer func() {
		for _, ns := range nodes {
			os.Remove(into(ns))
		}
	}()
	seconds, err := w.each(nodes, func(ns string) (float64, error) {
		out, err := w.command(ctx, ns, w.agent, "pull", "--head", w.head.URL, "--image", "bench", "--form", "squash",
			"--into", into(ns), "--json")
		if err != nil {
			return 0, err
		}
		var said struct{ Seconds float64 }
		err = json.Unmarshal(out, &said)
		return said.Seconds, err
	})
	for _, ns := range nodes {
		if err == nil {
			err = lab.Run(ctx, exec.Command("cmp", w.image, into(ns)))
		}
	}
	return seconds, err
}

// sent is what the head's link has sent, in bytes.
func (w *swarm) sent() float64 {
	var n float64
	w.network.Inside(func() error {
		out, err := exec.Command("ip", "-j", "-s", "link", "show", "dev", lab.Bridge).Output()
		var links []struct {
			Stats struct{ TX struct{ Bytes float64 } } `json:"stats64"`
		}
		if err == nil && json.Unmarshal(out, &links) == nil && len(links) == 1 {
			n = links[0].Stats.TX.Bytes
		}
		return err
	})
	return n
}

// nginx is the time that each node takes from nginx on the head.
func (w *swarm) nginx(ctx context.Context) ([]float64, error) {
	address := lab.HeadAddress.Addr().String() + ":8081"
	conf := filepath.Join(w.dir, "nginx.conf")
	text := fmt.Sprintf("daemon off; user root; pid %[1]s/nginx.pid; error_log stderr; worker_processes auto; events {} http { access_log off; sendfile on; server { listen %[2]s; root %[1]s; } }", w.dir, address)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	cmd := w.network.Command("nginx", "-c", conf)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() { cmd.Process.Signal(os.Interrupt); cmd.Wait() }()
	client := w.network.HTTPClient()
	for try := 0; ; try++ {
		resp, err := client.Head("http://" + address + "/image")
		if err == nil && resp.StatusCode == http.StatusOK {
			break
		}
		if try == 100 {
			return nil, fmt.Errorf("nginx does not answer: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return w.each(w.nodes, func(ns string) (float64, error) {
		out, err := w.command(ctx, ns, "curl", "-sf", "-o", "/dev/null", "-w", "%{time_total}", "http://"+address+"/image")
		if err != nil {
			return 0, err
		}
		return strconv.ParseFloat(string(out), 64)
	})
}

func (w *swarm) close(ctx context.Context) {
	for _, ns := range w.nodes {
		lab.Run(context.WithoutCancel(ctx), exec.Command("ip", "netns", "delete", ns))
	}
}
