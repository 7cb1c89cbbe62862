package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"muster/controller/power/ipmi/ipmitest"
	"muster/scripts/lab"
)

// The BMCs: of twenty one is dead, and one takes its time.
const (
	bmcCount  = 1000
	bmcSlow   = 3 * time.Second
	bmcRounds = 3   // of both, in turn
	bmcSample = 200 // of them are asked by ipmitool, which takes minutes for all
	ipmitools = 64  // processes at once
	// bmcCommand makes this program be the BMCs.
	bmcCommand = "bmcs"
)

// bmcAddress is that of the BMC of the node n<i>, at IPMI's own port.
func bmcAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 66, byte(i >> 8), byte(i)}) }

func bmcDead(i int) bool { return i%20 == 7 }
func bmcLate(i int) bool { return i%20 == 13 }

// serveBMCs is a machine room of BMCs, until ctx ends.
func serveBMCs(ctx context.Context, out io.Writer) error {
	for i := range bmcCount {
		o := ipmitest.Options{Silent: bmcDead(i)}
		if bmcLate(i) {
			o.Slow = bmcSlow
		}
		b, err := ipmitest.Listen(netip.AddrPortFrom(bmcAddress(i), 623).String(), o)
		if err != nil {
			return err
		}
		defer b.Close()
	}
	fmt.Fprintln(out, "ready")
	<-ctx.Done()
	return nil
}

// measurePower asks a thousand BMCs for their machines' power, through a head
// and by a loop of ipmitool processes in turn.
func measurePower(ctx context.Context, s settings) (figures []figure, err error) {
	b, err := newBed(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	l := &load{head: b.head, network: b.network, clients: 8}
	s.log.Info("creating nodes with their BMCs", "count", bmcCount)
	if err := l.createNodes(ctx, bmcCount); err != nil {
		return nil, err
	}
	if err := powerURIs(ctx, l); err != nil {
		return nil, err
	}
	if err := startBMCs(b.network); err != nil {
		return nil, err
	}
	before, err := memory(b.head.PID(), "VmRSS")
	if err != nil {
		return nil, err
	}
	var ours, theirs sweep
	for range bmcRounds {
		began := time.Now()
		got, err := l.sweepByHead(ctx)
		if err == nil {
			err = ours.add(began, got, bmcCount)
		}
		if err != nil {
			return nil, err
		}
		s.log.Info("power states of all BMCs by the head, in seconds", "sound", ours.sound, "all", ours.all)
		began = time.Now()
		if got, err = sweepByIpmitool(ctx, b.network); err == nil {
			err = theirs.add(began, got, bmcSample)
		}
		if err != nil {
			return nil, err
		}
		s.log.Info("power states of all BMCs by ipmitool, in seconds", "sound", theirs.sound, "all", theirs.all)
	}
	peak, err := memory(b.head.PID(), "VmHWM")
	if err != nil {
		return nil, err
	}
	ratio := func(what string, ours, theirs []float64) figure {
		r := median(theirs) / median(ours)
		return figure{fmt.Sprintf("power states, %s, against %d ipmitool at a time (by %d)", what, ipmitools, bmcSample), "≥ 20 ×", fmt.Sprintf("%.1f ×: %s s and %s s", r, spread(ours), spread(theirs)), r >= 20}
	}
	return []figure{
		atMost(fmt.Sprintf("power states of %d BMCs, the sound 90 %%", bmcCount), 2, median(ours.sound), "s", "of "+spread(ours.sound)),
		ratio("the sound", ours.sound, theirs.sound),
		ratio("all, with the late and the dead", ours.all, theirs.all),
		atMost("head, more memory for that", 100, (peak-before)/1024, "MB", ""),
	}, b.head.Stop()
}

// powerURIs tells each node where its BMC is, and that it has no console: what
// is measured is power alone.
func powerURIs(ctx context.Context, l *load) error {
	c, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if _, err := c.call("PATCH", "/api/v1/attrib/DefaultAttribs/attributes", fmt.Sprintf(`{"bmc_user":%q,"bmc_pass":%q,"_console_uri":"none"}`, ipmitest.User, ipmitest.Password)); err != nil {
		return err
	}
	for i := range bmcCount {
		if _, err := c.call("PATCH", fmt.Sprintf("/api/v1/node/n%d", i), fmt.Sprintf(`{"power_uri":"ipmi://<bmc_user>:<bmc_pass>@%s/"}`, bmcAddress(i))); err != nil {
			return err
		}
	}
	return nil
}

// startBMCs starts them in a process of their own, which ends with the network.
func startBMCs(n *lab.Network) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := n.Command(self, bmcCommand)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	go cmd.Wait()
	if err != nil || line != "ready\n" {
		return fmt.Errorf("the BMCs did not start: %w", err)
	}
	return nil
}

// answer is what was found out about a BMC's machine, and when.
type answer struct {
	node int
	on   bool
	at   time.Time
}

// sweep is how many seconds rounds took until all BMCs had a result, and until
// the sound ones had.
type sweep struct{ sound, all []float64 }

// add notes a round, for all BMCs where only some were asked: the sound ones as
// fast as those, the others as late. Its results must be right.
func (s *sweep) add(began time.Time, got []answer, count int) error {
	var sound, all time.Time
	seen := map[int]bool{}
	for _, a := range got {
		if a.on == bmcDead(a.node) || seen[a.node] {
			return fmt.Errorf("the BMC of n%d: on is %v", a.node, a.on)
		}
		seen[a.node] = true
		if all = a.at; !bmcDead(a.node) && !bmcLate(a.node) {
			sound = a.at
		}
	}
	if len(got) != count {
		return fmt.Errorf("%d BMCs have a result, not %d", len(got), count)
	}
	took := sound.Sub(began).Seconds() * bmcCount / float64(count)
	s.sound = append(s.sound, took)
	s.all = append(s.all, took+all.Sub(sound).Seconds())
	return nil
}

// sweepByHead asks a head, with what it does when nothing else is said.
func (l *load) sweepByHead(ctx context.Context) ([]answer, error) {
	client := l.network.HTTPClient()
	defer client.CloseIdleConnections()
	body := fmt.Sprintf(`{"nodes":"n[0-%d]","state":"status"}`, bmcCount-1)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.head.URL+"/api/v1/power", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+l.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return answers(resp.Body, func(line []byte) (node string, on bool, err error) {
		var r struct{ Node, State string }
		err = json.Unmarshal(line, &r)
		return r.Node, r.State == "on", err
	})
}

// sweepByIpmitool has a shell start one process for each BMC.
func sweepByIpmitool(ctx context.Context, n *lab.Network) ([]answer, error) {
	var list strings.Builder
	for i := range bmcSample {
		fmt.Fprintf(&list, "n%d %s\n", i, bmcAddress(i))
	}
	const one = `if ipmitool -I lanplus -H "$2" -U "$USER_NAME" -E chassis power status 2>/dev/null | grep -q 'is on'; then echo "$1 on"; else echo "$1 no"; fi`
	cmd := n.Command("xargs", "-P", fmt.Sprint(ipmitools), "-n", "2", "sh", "-c", one, "sh")
	cmd.Env = append(os.Environ(), "USER_NAME="+ipmitest.User, "IPMI_PASSWORD="+ipmitest.Password)
	cmd.Stdin, cmd.Stderr = strings.NewReader(list.String()), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	got, err := answers(out, func(line []byte) (string, bool, error) {
		node, state, _ := strings.Cut(string(line), " ")
		return node, state == "on", nil
	})
	return got, errors.Join(err, cmd.Wait())
}

// answers reads lines, each with the time at which it came.
func answers(in io.Reader, read func(line []byte) (node string, on bool, err error)) (out []answer, err error) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		a := answer{at: time.Now()}
		name := ""
		if name, a.on, err = read(lines.Bytes()); err != nil {
			return nil, err
		}
		if _, err := fmt.Sscanf(name, "n%d", &a.node); err != nil {
			return nil, fmt.Errorf("a result of %q: %w", name, err)
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b answer) int { return a.at.Compare(b.at) })
	return out, lines.Err()
}
