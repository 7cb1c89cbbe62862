package lab_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"muster/scripts/lab"
	"muster/shared/wire"
)

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
			b.checkRoot(t, b.node[m], "overlayfs")
			// What lies below the overlay is mounted where nobody sees it any more.
			if got := b.exec(t, b.node[m], "blkid", "-p", "-o", "value", "-s", "TYPE", "/dev/loop0"); got != "squashfs" {
				t.Errorf("the loop device holds %q, wanted a squashfs", got)
			}
			b.checkComplete(t, b.node[m])
		})
	}
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

// writableRoot: another boot style takes effect with the next boot.
func (b *bench) writableRoot(t *testing.T) {
	node := b.node[b.bios]
	b.muster(t, "bootconfig", "create", "Writable", "--image", "DefaultImage", "--boot-style", "rwram",
		"--kernel", b.Assets.Kernel, "--modules", b.Assets.Modules, "--cmdline", lab.Cmdline)
	b.muster(t, "node", "attributes", node, "set", "_boot_config=Writable")
	before := b.lastBoot(node)
	if err := b.bios.Reset(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.awaitUp(t, node, before)
	b.checkSteps(t, node)
	b.checkRoot(t, node, "tmpfs")
}

// noKernel: a boot configuration that lacks its kernel says so on the timeline,
// and the machine boots when it has one, untouched.
func (b *bench) noKernel(t *testing.T) {
	node := b.node[b.bios]
	b.muster(t, "bootconfig", "create", "NoKernel", "--image", "DefaultImage", "--boot-style", "roram")
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
	content := b.image(t)
	half := filepath.Join(b.Dir, "half")
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
	if s := b.awaitError(t, node, before); !strings.Contains(s.Error, "Half") || !strings.Contains(s.Error, "truncated") {
		t.Errorf("the timeline does not say what is wrong with the image: %s", s)
	}
	b.muster(t, "image", "upload", "Half", filepath.Join(b.Dir, "whole"))
	b.awaitUp(t, node, before)
	b.checkExec(t, node)
}

// image is the content of DefaultImage, which then lies in the file whole.
func (b *bench) image(t *testing.T) []byte {
	whole := filepath.Join(b.Dir, "whole")
	b.muster(t, "image", "download", "DefaultImage", whole)
	content, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// damagedStore: the head's disk gives back other bytes than it was given. No
// node takes them, the timeline says so, and the same upload again repairs it.
func (b *bench) damagedStore(t *testing.T) {
	node := b.node[b.bios]
	image, damaged := b.image(t), 0
	err := filepath.WalkDir(filepath.Join(b.Head.Data, "files"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		// Its blocks lie in the store as they do in the image, but not
		// necessarily one behind the other.
		for at := 20 << 20; err == nil && at < 20<<20+wire.PieceSize; at += 4096 {
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
	before := b.lastBoot(node)
	b.bios.Stop()
	if err := b.bios.Start(); err != nil {
		t.Fatal(err)
	}
	if s := b.awaitError(t, node, before); s.Step != "image" || !strings.Contains(s.Error, fmt.Sprintf("piece %d", (20<<20)/wire.PieceSize)) {
		t.Errorf("damaged content stops the boot at %s", s)
	}
	b.muster(t, "image", "upload", "Half", filepath.Join(b.Dir, "whole"))
	b.awaitUp(t, node, before)
	b.checkExec(t, node)
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

// switchedOff: power is lost in the middle of the image, and comes back.
func (b *bench) switchedOff(t *testing.T) {
	node := b.node[b.uefi]
	before := b.lastBoot(node)
	b.uefi.Stop()
	if err := b.uefi.Start(); err != nil {
		t.Fatal(err)
	}
	b.await(t, node, before, "the image", func(s step) bool { return s.Step == "image" })
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
