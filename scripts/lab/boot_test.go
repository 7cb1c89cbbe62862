package lab_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"muster/scripts/lab"
)

// TestBoot boots real machines through real firmware from a real head, and
// looks at them only as an admin can: by the command line and the API. Each
// scenario says in front of its function what it proves.
//
// An emulated machine keeps one core busy while it boots, so there are two
// lines of scenarios beside each other: what is done to the BIOS machine, which
// has its power by IPMI, and to the UEFI machine, which has it by Redfish, both
// followed by machines that come for one scenario. What befalls the head is
// alone.
func TestBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines, which takes minutes")
	}
	if os.Geteuid() != 0 {
		t.Skip("the lab's network namespace needs root")
	}
	b := newBench(t)
	b.run(t, line{{"FirstLight", (*bench).firstLight}})
	b.run(t, line{
		{"PanicAndRecovery", (*bench).panicAndRecovery},
		{"WhatIsMissing", (*bench).whatIsMissing},
		{"Applied", (*bench).applied},
		{"FromISOWithBIOS", (*bench).fromISOWithBIOS},
		{"OwnDisk", (*bench).ownDisk},
	}, line{
		{"SwitchedOffWhilePulling", (*bench).switchedOff},
		{"OverISCSI", (*bench).overISCSI},
		{"FromISOWithUEFI", (*bench).fromISOWithUEFI},
		{"Disked", (*bench).disked},
	})
	b.run(t, line{{"HeadKilledWhileBooting", (*bench).headKilled}})
}

// TestBootAll is what takes too long for every day.
func TestBootAll(t *testing.T) {
	if !*all {
		t.Skip("only with -all: make test-all")
	}
	newBench(t).run(t, line{{"LiveISO", (*bench).liveISO}}, line{{"DiskUpdate", (*bench).diskUpdate}})
}

// scenario is one thing that must work, on a cluster that is there already.
type scenario struct {
	name string
	run  func(*bench, *testing.T)
}

// line is scenarios in their order: each leaves its machine up for the next.
type line []scenario

// run runs lines beside each other.
func (b *bench) run(t *testing.T, lines ...line) {
	t.Helper()
	var all sync.WaitGroup
	for _, l := range lines {
		all.Go(func() {
			for _, s := range l {
				if !t.Run(s.name, func(t *testing.T) { s.run(b, t) }) {
					return
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.Fatal(b.Tails(40))
	}
}

// bench is a cluster under test.
type bench struct {
	*lab.Cluster
	ctx context.Context
	// The machines that stay, and the names that the head gave them.
	bios, uefi         *lab.Machine
	biosNode, uefiNode string
	iscsiNode          string
}

var all = flag.Bool("all", false, "run TestBootAll too")

var cacheDir = flag.String("cache", os.Getenv("MUSTER_LAB_CACHE"), "directory of the lab's assets")

func newBench(t *testing.T) *bench {
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	c, err := lab.NewCluster(ctx, lab.Options{Program: build(t), Cache: *cacheDir, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	b := &bench{Cluster: c, ctx: ctx}
	if err := c.Setup(func(args ...string) error { _, err := c.Head.CLI(ctx, args...); return err }); err != nil {
		t.Fatal(err)
	}
	// The quicker of the boot styles, for all that is not about them.
	b.muster(t, "bootconfig", "update", "DefaultBoot", "--boot-style", "roram", "--cmdline", toAgent)
	return b
}

// toAgent is the command line of boots that are not about what the image's init
// does when it has started the agent: that alone takes an emulated processor as
// long as all before.
const toAgent = lab.Cmdline + " systemd.unit=muster-agent.service"

// build makes the programs from the present source, so that a test never judges an old one.
func build(t *testing.T) string {
	dir := t.TempDir()
	for name, what := range map[string][2]string{"muster": {"muster/controller", ""}, "muster-agent": {"muster/agent", "nethttpomithttp2"}} { // as the Makefile does
		cmd := exec.Command("go", "build", "-trimpath", "-tags", what[1], "-ldflags", "-s -w", "-o", filepath.Join(dir, name), what[0])
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
	return filepath.Join(dir, "muster")
}

// step is an entry of a boot's timeline.
type step struct {
	Boot   int
	Step   string
	Time   float64
	Detail string
	Error  string
}

func (s step) String() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s %s %s", s.Boot, s.Step, s.Detail, s.Error))
}

// patience is for one boot on an emulated processor that others use too. A quiet
// host needs a twentieth of it.
const patience = 8 * time.Minute

func (b *bench) muster(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.Head.CLI(b.ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// timeline is nil when the head does not answer or does not know the machine.
func (b *bench) timeline(node string) []step {
	var steps []step
	if err := b.Head.JSON(b.ctx, &steps, "boot", "log", node); err != nil {
		return nil
	}
	return steps
}

// lastBoot is the number of the node's latest boot so far.
func (b *bench) lastBoot(node string) int {
	if steps := b.timeline(node); len(steps) > 0 {
		return steps[len(steps)-1].Boot
	}
	return 0
}

// await waits for the first step of a boot after the given one that is as
// wanted, and returns it.
func (b *bench) await(t *testing.T, node string, after int, what string, wanted func(step) bool) step {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	var seen []step
	for pause := 20 * time.Millisecond; ; pause = min(pause*3/2, 500*time.Millisecond) {
		steps := b.timeline(node)
		for _, s := range steps {
			if s.Boot > after && wanted(s) {
				return s
			}
		}
		if len(steps) != len(seen) {
			seen, pause = steps, 20*time.Millisecond
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %s did not come; its timeline: %v", node, what, seen)
		case <-time.After(pause):
		}
	}
}

func (b *bench) awaitUp(t *testing.T, node string, after int) step {
	t.Helper()
	up := b.await(t, node, after, "the machine up", func(s step) bool { return s.Step == "up" && s.Error == "" })
	b.muster(t, "wait", "-n", node, "up", "--timeout", "30s")
	for _, s := range b.timeline(node) {
		if s.Boot > after {
			t.Logf("%s %5.1f s  %s", node, s.Time-up.Time, s)
		}
	}
	return up
}

func (b *bench) exec(t *testing.T, node string, command ...string) string {
	t.Helper()
	return b.muster(t, append([]string{"exec", "-n", node, "--"}, command...)...)
}

// own buys a machine and makes it known to the head, with attributes. It is off.
func (b *bench) own(t *testing.T, spec lab.Spec, attributes ...string) (m *lab.Machine, node string) {
	t.Helper()
	b.muster(t, "node", "create", "--mac", spec.MAC)
	node = b.called(t, spec.MAC)
	b.set(t, node, attributes...)
	m, err := b.Machine(b.ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	return m, node
}

// called is the name that the head gave to a machine.
func (b *bench) called(t *testing.T, mac string) string {
	t.Helper()
	var node struct{ Name string }
	if err := b.Head.JSON(b.ctx, &node, "node", "get", mac); err != nil {
		t.Fatal(err)
	}
	return node.Name
}

// restart pulls a machine's plug, if it is on, and switches it on.
func (b *bench) restart(t *testing.T, m *lab.Machine) {
	t.Helper()
	m.Stop()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
}
