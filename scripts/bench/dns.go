package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"muster/scripts/lab"
)

const (
	dnsRounds  = 5 // of each server, in turn
	dnsQueries = 50_000
	dnsOurs    = 5310 // ports on loopback
	dnsPeer    = 5311
	dnsDomain  = "cluster.local"
	dnsChanges = 50
)

// measureDNS has dnsperf ask a head and dnsmasq for the same names, in turn.
func measureDNS(ctx context.Context, s settings) (figures []figure, err error) {
	b, err := newBed(ctx, s, "--dns", fmt.Sprintf("127.0.0.1:%d", dnsOurs), "--dns-upstreams", "none")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	l := &load{head: b.head, network: b.network, clients: s.clients}
	s.log.Info("creating nodes", "count", s.nodes)
	if err := l.createNodes(ctx, s.nodes); err != nil {
		return nil, err
	}
	d := &resolvers{network: b.network, dir: b.dir, nodes: s.nodes}
	follow, err := d.follow(ctx, l)
	if err != nil {
		return nil, err
	}
	figures = append(figures, follow)
	speed, err := d.compare(ctx, s)
	if err != nil {
		return figures, err
	}
	return append(figures, speed), b.head.Stop()
}

// resolvers are the two that are compared.
type resolvers struct {
	network *lab.Network
	dir     string
	nodes   int
}

// compare runs dnsperf against each in turn; other load on the machine then
// weighs on both.
func (d *resolvers) compare(ctx context.Context, s settings) (figure, error) {
	queries, err := d.files()
	if err != nil {
		return figure{}, err
	}
	stop, err := d.dnsmasq(ctx)
	if err != nil {
		return figure{}, err
	}
	defer stop()
	var ours, theirs, ratios []float64
	for range dnsRounds {
		a, err := d.perf(ctx, dnsOurs, queries, s.span)
		if err != nil {
			return figure{}, err
		}
		b, err := d.perf(ctx, dnsPeer, queries, s.span)
		if err != nil {
			return figure{}, err
		}
		s.log.Info("DNS answers a second", "muster", int(a), "dnsmasq", int(b))
		ours, theirs, ratios = append(ours, a), append(theirs, b), append(ratios, a/b)
	}
	ratio := median(ratios)
	return figure{fmt.Sprintf("DNS, %d nodes, against dnsmasq", s.nodes), "≥ 1.5 ×",
		fmt.Sprintf("%s ×: %.0f/s and %.0f/s", spread(ratios), median(ours), median(theirs)), ratio >= 1.5}, nil
}

// files writes what is asked, and dnsmasq's records: both know a node by its
// full and its short name, and its address by the full one.
func (d *resolvers) files() (queries string, err error) {
	var hosts, asked bytes.Buffer
	addr := netip.MustParseAddr("10.64.0.1")
	for i := range d.nodes {
		fmt.Fprintf(&hosts, "%s n%d.%s n%d\n", addr, i, dnsDomain, i)
		addr = addr.Next()
	}
	for range dnsQueries {
		switch i := rand.IntN(d.nodes); rand.IntN(4) {
		case 0:
			fmt.Fprintf(&asked, "n%d A\n", i)
		default:
			fmt.Fprintf(&asked, "n%d.%s A\n", i, dnsDomain)
		}
	}
	queries = filepath.Join(d.dir, "queries")
	if err := os.WriteFile(filepath.Join(d.dir, "hosts"), hosts.Bytes(), 0o644); err != nil {
		return "", err
	}
	return queries, os.WriteFile(queries, asked.Bytes(), 0o644)
}

// dnsmasq starts it and waits until it answers for the last node.
func (d *resolvers) dnsmasq(ctx context.Context) (stop func(), err error) {
	cmd := d.network.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--no-resolv", "--no-hosts",
		"--addn-hosts="+filepath.Join(d.dir, "hosts"), "--local=/"+dnsDomain+"/", "--cache-size=10000", "--local-ttl=10",
		"--bind-interfaces", "--listen-address=127.0.0.1", "--port="+strconv.Itoa(dnsPeer))
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() { cmd.Process.Kill(); cmd.Wait() }
	last := dns.Fqdn(fmt.Sprintf("n%d.%s", d.nodes-1, dnsDomain))
	for wait, cancel := context.WithTimeout(ctx, 30*time.Second); ; {
		if answers, err := d.ask(wait, dnsPeer, last); err == nil && len(answers) == 1 {
			cancel()
			return stop, nil
		}
		select {
		case <-wait.Done():
			cancel()
			stop()
			return nil, errors.New("dnsmasq does not answer")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

var (
	perSecond = regexp.MustCompile(`Queries per second:\s+([\d.]+)`)
	allFound  = regexp.MustCompile(`Response codes:\s+NOERROR \d+ \(100\.00%\)`)
)

// perf is what dnsperf measures. Its twenty clients are as many sockets.
func (d *resolvers) perf(ctx context.Context, port int, queries string, span time.Duration) (float64, error) {
	cmd := d.network.Command("dnsperf", "-s", "127.0.0.1", "-p", strconv.Itoa(port), "-d", queries, "-l", strconv.Itoa(int(span.Seconds())), "-c", "20", "-q", "200", "-t", "2")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("dnsperf: %w: %s", err, out)
	}
	m := perSecond.FindSubmatch(out)
	if m == nil || !allFound.Match(out) {
		return 0, fmt.Errorf("not all names were found:\n%s", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// follow is how long after a change is acknowledged DNS answers so.
func (d *resolvers) follow(ctx context.Context, l *load) (figure, error) {
	c, err := l.connect(ctx)
	if err != nil {
		return figure{}, err
	}
	defer c.conn.Close()
	var took []float64
	for i := range dnsChanges {
		at := rand.IntN(d.nodes)
		extra := netip.AddrFrom4([4]byte{10, 200, 0, byte(i)}).String()
		if _, err := c.call("PATCH", "/api/v1/node/"+fmt.Sprintf("n%d", at), fmt.Sprintf(`{"attributes":{"_ips":%q}}`, extra)); err != nil {
			return figure{}, err
		}
		begin := time.Now()
		for found := false; !found; {
			answers, err := d.ask(ctx, dnsOurs, dns.Fqdn(fmt.Sprintf("n%d.%s", at, dnsDomain)))
			if err != nil {
				return figure{}, err
			}
			took = append(took[:i], time.Since(begin).Seconds()*1e3)
			found = strings.Contains(strings.Join(answers, " "), extra)
			if time.Since(begin) > 5*time.Second {
				return figure{}, fmt.Errorf("n%d does not get the address %s in DNS", at, extra)
			}
		}
	}
	return atMost("DNS follows a change", 100, slices.Max(took), "ms", "at most, of "+spread(took)), nil
}

// ask gives the addresses of a name.
func (d *resolvers) ask(ctx context.Context, port int, name string) (addrs []string, err error) {
	err = d.network.Inside(func() error {
		m := new(dns.Msg).SetQuestion(name, dns.TypeA)
		answer, _, err := (&dns.Client{}).ExchangeContext(ctx, m, fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}
		for _, r := range answer.Answer {
			if a, ok := r.(*dns.A); ok {
				addrs = append(addrs, a.A.String())
			}
		}
		return nil
	})
	return addrs, err
}
