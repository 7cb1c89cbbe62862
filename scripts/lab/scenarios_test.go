package lab_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"muster/scripts/lab"
	"muster/shared/wire"
)

// firstLight: two bare machines are switched on through their BMCs, one by IPMI
// and one by Redfish, and boot through the firmware of each kind, with all that
// the image's init starts.
func (b *bench) firstLight(t *testing.T) {
	b.muster(t, "bootconfig", "update", "DefaultBoot", "--cmdline", lab.Cmdline)
	defer b.muster(t, "bootconfig", "update", "DefaultBoot", "--cmdline", toAgent)
	b.bios, b.biosNode = b.own(t, lab.Spec{Name: "bios", MAC: "52:54:00:77:00:01", Firmware: lab.BIOS, Disk: 1 << 30})
	b.uefi, b.uefiNode = b.own(t, lab.Spec{Name: "uefi", MAC: "52:54:00:77:00:02", Firmware: lab.UEFI, Boot: lab.PXE, Disk: 1 << 30})
	b.powered(t, b.biosNode, b.bios.BMC.IPMI)
	b.powered(t, b.uefiNode, b.uefi.BMC.Redfish)
	var both sync.WaitGroup
	for m, node := range map[*lab.Machine]string{b.bios: b.biosNode, b.uefi: b.uefiNode} {
		both.Go(func() {
			t.Run(m.Spec.Firmware.String(), func(t *testing.T) { b.comesUp(t, m, node) })
		})
	}
	both.Wait()
}

// comesUp: all that is known of a machine that was switched on is as it should be.
func (b *bench) comesUp(t *testing.T, m *lab.Machine, node string) {
	b.power(t, node, "status", "off")
	b.power(t, node, "on", "on")
	b.awaitUp(t, node, 0)
	b.checkSteps(t, node)
	b.checkHardware(t, m, node)
	b.checkExec(t, node)
	b.checkRoot(t, node, "overlayfs")
	// What lies below the overlay is mounted where nobody sees it any more.
	if got := b.exec(t, node, "blkid", "-p", "-o", "value", "-s", "TYPE", "/dev/loop0"); got != "squashfs" {
		t.Errorf("the loop device holds %q, wanted a squashfs", got)
	}
	b.checkComplete(t, node)
}

// checkComplete: once the whole image is there, the node no longer needs the
// process that fetched it, nor the head.
func (b *bench) checkComplete(t *testing.T, node string) {
	b.exec(t, node, "while pgrep -f '^@muster-agent stream' >/dev/null; do sleep 0.2; done")
	if got := b.exec(t, node, "cat /sys/block/loop0/loop/backing_file; cat /sys/block/nbd0/size"); !strings.HasSuffix(got, "\n0") || strings.Contains(got, "nbd") {
		t.Errorf("after the image is there, the loop device has %q behind it", got)
	}
	b.exec(t, node, "echo 3 > /proc/sys/vm/drop_caches; find / -xdev -type f -exec cat {} + | wc -c")
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

func (b *bench) checkHardware(t *testing.T, m *lab.Machine, name string) {
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
	b.muster(t, "wait", "-n", name, "--until", "h[ram_total] > 0", "--timeout", patience.String())
	if err := b.Head.JSON(b.ctx, &node, "node", "get", name); err != nil {
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

// whatIsMissing: a boot that lacks one thing after the other says so each time
// on the timeline, and goes on by itself when that is there: a kernel; the
// second half of the image; what the head's disk gives back as it was stored.
func (b *bench) whatIsMissing(t *testing.T) {
	node, whole := b.biosNode, filepath.Join(b.Dir, "whole")
	image := b.otherImage(t, whole)
	half := filepath.Join(b.Dir, "half")
	if err := os.WriteFile(half, image[:len(image)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"Half": half, "Damaged": whole} {
		b.muster(t, "image", "create", name)
		b.muster(t, "image", "upload", name, file)
	}
	b.damage(t, image)
	b.muster(t, "bootconfig", "create", "Broken", "--image", "Half", "--boot-style", "roram")
	b.muster(t, "node", "boot", node, "--once", "Broken")
	before := b.lastBoot(node)
	b.power(t, node, "reset", "on")
	stopsAt := func(name, image, what string) {
		t.Helper()
		b.await(t, node, before, "an error of "+image+": "+what, func(s step) bool {
			return s.Step == name && strings.Contains(s.Error, image) && strings.Contains(s.Error, what)
		})
	}
	stopsAt("firmware", "Broken", "kernel")
	b.muster(t, "bootconfig", "update", "Broken", "--kernel", b.Assets.Kernel, "--modules", b.Assets.Modules, "--cmdline", toAgent)
	stopsAt("firmware", "Half", "truncated")
	b.muster(t, "bootconfig", "update", "Broken", "--image", "Damaged")
	stopsAt("image", "Damaged", fmt.Sprintf("piece %d", damagedAt/wire.PieceSize))
	b.muster(t, "image", "upload", "Damaged", whole)
	b.awaitUp(t, node, before)
	b.checkExec(t, node)
}

// otherImage makes a squashfs of the lab's image that has no block in common with
// DefaultImage, which other machines boot meanwhile.
func (b *bench) otherImage(t *testing.T, file string) []byte {
	t.Helper()
	tar, err := os.Open(b.Assets.Image)
	if err != nil {
		t.Fatal(err)
	}
	defer tar.Close()
	cmd := exec.CommandContext(b.ctx, "sqfstar", "-quiet", "-no-progress", "-b", "64K", file)
	cmd.Stdin = tar
	must(t, cmd)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// damagedAt is where damage begins to look for a block, in bytes.
const damagedAt = 20 << 20

// damage has the head's disk give back other bytes of an image than it was given.
func (b *bench) damage(t *testing.T, image []byte) {
	t.Helper()
	damaged := 0
	err := filepath.WalkDir(filepath.Join(b.Head.Data, "files"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		// Its blocks lie in the store as they do in the image, but not
		// necessarily one behind the other.
		for at := damagedAt; err == nil && at < damagedAt+wire.PieceSize; at += 4096 {
			if found := bytes.Index(raw, image[at:at+64]); found >= 0 {
				damaged++
				return overwrite(path, int64(found), []byte("not what was uploaded"))
			}
		}
		return err
	})
	if err != nil || damaged == 0 { // the truncated upload may hold the bytes too
		t.Fatalf("%d files of the head's store hold the image, %v", damaged, err)
	}
}

func overwrite(path string, at int64, with []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(with, at)
	return errors.Join(err, f.Close(), os.Chmod(path, info.Mode()))
}

// headKilled: the head dies while machines boot, one in its firmware and one in
// its agent, and comes back. One of them, with UEFI HTTP boot, is a machine that
// nobody has told the head of. Where a root file system is read from the head
// over iSCSI it goes on as well.
func (b *bench) headKilled(t *testing.T) {
	node := b.biosNode
	before := b.lastBoot(node)
	b.power(t, node, "reset", "on")
	web, err := b.Machine(b.ctx, lab.Spec{Name: "web", MAC: "52:54:00:77:00:03", Firmware: lab.UEFI, Boot: lab.HTTPBoot})
	if err != nil {
		t.Fatal(err)
	}
	b.restart(t, web)
	b.await(t, node, before, "the agent", func(s step) bool { return s.Step == "agent" || s.Step == "kernel" })
	b.Head.Kill()
	if err := b.Head.Start(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.muster(t, "wait", "-n", b.iscsiNode, "up", "--timeout", patience.String())
	b.exec(t, b.iscsiNode, "echo 3 > /proc/sys/vm/drop_caches; cat /usr/bin/perl /usr/lib/*/libc.so.6 | wc -c")
	b.awaitUp(t, node, before)
	b.checkExec(t, node)
	b.await(t, web.Spec.MAC, 0, "the unknown machine", func(step) bool { return true })
	stranger := b.called(t, web.Spec.MAC)
	b.awaitUp(t, stranger, 0)
	b.checkExec(t, stranger)
	b.muster(t, "wait", "-n", b.uefiNode, "up", "--timeout", patience.String())
}
