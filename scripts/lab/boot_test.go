package lab_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster/scripts/lab"
)

// TestBoot boots real machines through real firmware from a real head, and
// looks at them only as an admin can: by the command line and the API.
func TestBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines, which takes minutes")
	}
	if os.Geteuid() != 0 {
		t.Skip("the lab's network namespace needs root")
	}
	b := newBench(t)
	// Each leaves its machine up for the next; the first buys them.
	for _, s := range []struct {
		name string
		run  func(*bench, *testing.T)
	}{
		{"FirstLight", (*bench).firstLight},
		{"ReadOnlyRoot", (*bench).readOnlyRoot},
		{"NoKernel", (*bench).noKernel},
		{"TruncatedImage", (*bench).truncatedImage},
		{"SwitchedOffWhilePulling", (*bench).switchedOff},
		{"HeadKilledWhileBooting", (*bench).headKilled},
	} {
		if !t.Run(s.name, func(t *testing.T) { s.run(b, t) }) {
			t.Fatal(b.Tails(40))
		}
	}
}

// bench is a cluster under test.
type bench struct {
	*lab.Cluster
	ctx        context.Context
	bios, uefi *lab.Machine
	node       map[*lab.Machine]string // the name that the head gave it
}

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
	b := &bench{Cluster: c, ctx: ctx, node: map[*lab.Machine]string{}}
	if err := c.Setup(func(args ...string) error { _, err := c.Head.CLI(ctx, args...); return err }); err != nil {
		t.Fatal(err)
	}
	return b
}

// build makes the programs from the present source, so that a test never judges an old one.
func build(t *testing.T) string {
	dir := t.TempDir()
	for name, source := range map[string]string{"muster": "muster/controller", "muster-agent": "muster/agent"} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), source)
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

// patience is for one boot on an emulated processor that others use too.
const patience = 4 * time.Minute

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
	t.Log("\n" + b.muster(t, "boot", "log", node))
	return up
}

func (b *bench) awaitError(t *testing.T, node string, after int) step {
	t.Helper()
	return b.await(t, node, after, "a step with an error", func(s step) bool { return s.Error != "" })
}

func (b *bench) exec(t *testing.T, node string, command ...string) string {
	t.Helper()
	return b.muster(t, append([]string{"exec", "-n", node, "--"}, command...)...)
}

func (b *bench) switchOn(t *testing.T, spec lab.Spec) *lab.Machine {
	t.Helper()
	m, err := b.Machine(b.ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	return m
}

// firstLight: two bare machines that nobody has told the head of.
func (b *bench) firstLight(t *testing.T) {
	b.bios = b.switchOn(t, lab.Spec{Name: "bios", MAC: "52:54:00:77:00:01", Firmware: lab.BIOS, Disk: 1 << 30})
	b.uefi = b.switchOn(t, lab.Spec{Name: "uefi", MAC: "52:54:00:77:00:02", Firmware: lab.UEFI, Boot: lab.PXE, Disk: 1 << 30})
	b.muster(t, "wait", "-n", "n[0-1]", "up", "--timeout", patience.String())
	var nodes []struct{ Name, MAC string }
	if err := b.Head.JSON(b.ctx, &nodes, "node", "ls"); err != nil {
		t.Fatal(err)
	}
	if len(nodes) != 2 {
		t.Fatalf("two machines were switched on, these nodes are there: %v", nodes)
	}
	for _, n := range nodes {
		for _, m := range []*lab.Machine{b.bios, b.uefi} {
			if strings.EqualFold(n.MAC, m.Spec.MAC) {
				b.node[m] = n.Name
			}
		}
	}
	for _, m := range []*lab.Machine{b.bios, b.uefi} {
		t.Run(m.Spec.Firmware.String(), func(t *testing.T) {
			b.checkSteps(t, b.node[m])
			b.checkHardware(t, m)
			b.checkExec(t, b.node[m])
			b.checkRoot(t, b.node[m], "tmpfs")
		})
	}
}

// checkSteps: the latest boot went through every step, in order, at once.
func (b *bench) checkSteps(t *testing.T, node string) {
	var names []string
	steps := b.timeline(node)
	last := steps[len(steps)-1].Boot
	for i, s := range steps {
		if s.Boot != last {
			continue
		}
		if s.Error != "" {
			t.Errorf("step %s failed: %s", s.Step, s.Error)
		}
		if i > 0 && s.Time < steps[i-1].Time {
			t.Errorf("step %s is earlier than the one before it", s.Step)
		}
		if !slices.Contains(names, s.Step) {
			names = append(names, s.Step)
		}
	}
	wanted := []string{"dhcp", "firmware", "kernel", "agent", "enrol", "image", "root", "up"}
	if !slices.Equal(names, wanted) {
		t.Errorf("steps are %v, wanted %v", names, wanted)
	}
}

func (b *bench) checkHardware(t *testing.T, m *lab.Machine) {
	var node struct {
		Status   map[string]any
		Hardware struct {
			MAC      string  `json:"mac"`
			RAM      float64 `json:"ram_total"`
			CPUs     int     `json:"cpu_count"`
			Arch     string  `json:"cpu_arch"`
			CPUModel string  `json:"cpu_model"`
		}
	}
	if err := b.Head.JSON(b.ctx, &node, "node", "get", b.node[m]); err != nil {
		t.Fatal(err)
	}
	h := node.Hardware
	if !strings.EqualFold(h.MAC, m.Spec.MAC) || h.CPUs != m.Spec.CPUs || h.Arch != "x86_64" || h.CPUModel == "" {
		t.Errorf("hardware is %+v of a machine with %+v", h, m.Spec)
	}
	// In KiB; the kernel keeps a part of the memory for itself.
	if ratio := h.RAM / float64(m.Spec.Memory<<10); ratio < 0.7 || ratio > 1 {
		t.Errorf("ram_total is %g KiB of a machine with %d MiB", h.RAM, m.Spec.Memory)
	}
	if node.Status["state"] != "up" {
		t.Errorf("status.state is %v", node.Status["state"])
	}
}

func (b *bench) checkExec(t *testing.T, node string) {
	kernel := filepath.Base(b.Assets.Modules)
	if got := b.exec(t, node, "uname", "-a"); !strings.HasPrefix(got, "Linux") || !strings.Contains(got, kernel) {
		t.Errorf("uname -a says %q, wanted a Linux with kernel %s", got, kernel)
	}
	if got := b.exec(t, node, "hostname"); got != node {
		t.Errorf("hostname of %s is %q", node, got)
	}
	if got := b.exec(t, node, "cat", "/proc/1/comm"); got != "systemd" {
		t.Errorf("process 1 is %q, wanted the image's own init", got)
	}
	_, err := b.Head.CLI(b.ctx, "exec", "-n", node, "--", "exit 7")
	if failed, ok := errors.AsType[*lab.CommandError](err); !ok || failed.Status() != 7 {
		t.Errorf("a command that exits with 7 ends with %v", err)
	}
}

func (b *bench) checkRoot(t *testing.T, node, filesystem string) {
	if got := b.exec(t, node, "stat", "-f", "-c", "%T", "/"); got != filesystem {
		t.Errorf("the root of %s is %s, wanted %s", node, got, filesystem)
	}
	b.exec(t, node, "echo muster > /root/written && grep -q muster /root/written")
}

// readOnlyRoot: another boot style takes effect with the next boot.
func (b *bench) readOnlyRoot(t *testing.T) {
	node := b.node[b.uefi]
	b.muster(t, "bootconfig", "update", "DefaultBoot", "--boot-style", "roram")
	before := b.lastBoot(node)
	if err := b.uefi.Reset(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.awaitUp(t, node, before)
	b.checkSteps(t, node)
	b.checkRoot(t, node, "overlayfs")
	// What lies below the overlay is mounted where nobody sees it any more.
	if got := b.exec(t, node, "blkid", "-p", "-o", "value", "-s", "TYPE", "/dev/loop0"); got != "squashfs" {
		t.Errorf("the loop device holds %q, wanted a squashfs", got)
	}
}

// noKernel: a boot configuration that lacks its kernel says so on the timeline,
// and the machine boots when it has one, untouched.
func (b *bench) noKernel(t *testing.T) {
	node := b.node[b.bios]
	b.muster(t, "bootconfig", "create", "NoKernel", "--image", "DefaultImage")
	b.muster(t, "node", "attributes", node, "set", "_boot_config=NoKernel")
	before := b.lastBoot(node)
	if err := b.bios.Reset(b.ctx); err != nil {
		t.Fatal(err)
	}
	if s := b.awaitError(t, node, before); !strings.Contains(s.Error, "kernel") || !strings.Contains(s.Error, "NoKernel") {
		t.Errorf("the timeline does not name what is missing: %s", s)
	}
	b.muster(t, "bootconfig", "update", "NoKernel", "--kernel", b.Assets.Kernel, "--modules", b.Assets.Modules, "--cmdline", lab.Cmdline)
	b.awaitUp(t, node, before)
	b.checkExec(t, node)
}

// truncatedImage: half an image is refused with its reason, and the machine
// boots when the image is whole, untouched.
func (b *bench) truncatedImage(t *testing.T) {
	node := b.node[b.bios]
	whole, half := filepath.Join(b.Dir, "whole"), filepath.Join(b.Dir, "half")
	b.muster(t, "image", "download", "DefaultImage", whole)
	content, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(half, content[:len(content)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	b.muster(t, "image", "create", "Half")
	b.muster(t, "image", "upload", "Half", half)
	b.muster(t, "bootconfig", "update", "NoKernel", "--image", "Half")
	before := b.lastBoot(node)
	b.bios.Stop()
	if err := b.bios.Start(); err != nil {
		t.Fatal(err)
	}
	if s := b.awaitError(t, node, before); !strings.Contains(s.Error, "Half") && !strings.Contains(s.Error, "squashfs") {
		t.Errorf("the timeline does not say what is wrong with the image: %s", s)
	}
	b.muster(t, "image", "upload", "Half", whole)
	b.awaitUp(t, node, before)
	b.checkExec(t, node)
}

// switchedOff: power is lost in the middle of the image, and comes back.
func (b *bench) switchedOff(t *testing.T) {
	node := b.node[b.uefi]
	before := b.lastBoot(node)
	b.uefi.Stop()
	if err := b.uefi.Start(); err != nil {
		t.Fatal(err)
	}
	b.await(t, node, before, "enrolment", func(s step) bool { return s.Step == "enrol" })
	b.uefi.Stop()
	before = b.lastBoot(node)
	if err := b.uefi.Start(); err != nil {
		t.Fatal(err)
	}
	b.awaitUp(t, node, before)
	b.checkExec(t, node)
}

// headKilled: the head dies while machines boot, one in its firmware and one
// in its agent, and comes back. A third one with UEFI HTTP boot, that the head does not know, is among them.
func (b *bench) headKilled(t *testing.T) {
	node := b.node[b.bios]
	before := b.lastBoot(node)
	if err := b.bios.Reset(b.ctx); err != nil {
		t.Fatal(err)
	}
	web := b.switchOn(t, lab.Spec{Name: "web", MAC: "52:54:00:77:00:03", Firmware: lab.UEFI, Boot: lab.HTTPBoot})
	b.await(t, node, before, "the agent", func(s step) bool { return s.Step == "agent" || s.Step == "kernel" })
	b.Head.Kill()
	if err := b.Head.Start(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.awaitUp(t, node, before)
	b.checkExec(t, node)
	b.awaitUp(t, "n2", 0)
	b.checkExec(t, "n2")
	if !web.On() {
		t.Error("the machine with UEFI HTTP boot went off")
	}
	b.muster(t, "wait", "-a", "up", "--timeout", "1m")
}
