package lab_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/scripts/lab"
)

// rootStep is what the latest boot's root was made of.
func (b *bench) rootStep(t *testing.T, node string) string {
	t.Helper()
	detail := ""
	for _, s := range b.timeline(node) {
		if s.Step == "root" {
			detail = s.Detail
		}
	}
	return detail
}

func (b *bench) upAgain(t *testing.T, m *lab.Machine, node string) {
	t.Helper()
	before := b.lastBoot(node)
	b.restart(t, m)
	b.awaitUp(t, node, before)
	t.Log(b.rootStep(t, node))
}

// disked: an empty disk becomes the root; the next boot writes nothing.
func (b *bench) disked(t *testing.T) {
	m, node := b.diskMachine(t)
	defer m.Stop()
	b.upAgain(t, m, node)
	b.checkExec(t, node)
	b.checkRoot(t, node, "ext2/ext3")
	b.exec(t, node, "sync") // the plug is pulled next
	hosts := b.exec(t, node, "cat", "/etc/hosts")
	b.upAgain(t, m, node)
	if got := b.rootStep(t, node); !strings.Contains(got, "nothing was written") {
		t.Errorf("the second boot says %q", got)
	}
	b.exec(t, node, "grep -q muster /root/written")
	if got := b.exec(t, node, "cat", "/etc/hosts"); got != hosts {
		t.Errorf("/etc/hosts became %q after %q", got, hosts)
	}
}

func (b *bench) diskMachine(t *testing.T) (*lab.Machine, string) {
	t.Helper()
	return b.own(t, lab.Spec{Name: "disked", MAC: "52:54:00:77:02:03", Disk: 1 << 30, Memory: 768},
		"_boot_style=disked", "_disk_root=/dev/vda")
}

// diskUpdate: only what differs is written, and power that is lost meanwhile
// leaves nothing that is neither the old nor the new image.
func (b *bench) diskUpdate(t *testing.T) {
	m, node := b.diskMachine(t)
	defer m.Stop()
	b.upAgain(t, m, node)
	old := b.exec(t, node, "cat /etc/os-release /etc/motd 2>/dev/null; ls /opt")
	b.changeImage(t)
	b.muster(t, "bootconfig", "create", "Changed", "--image", "Changed", "--kernel", b.Assets.Kernel, "--modules", b.Assets.Modules, "--cmdline", toAgent)

	b.set(t, node, "_boot_config=Changed")
	from := m.Console.Mark()
	b.restart(t, m)
	b.says(t, m, from, "writing the image to the disk")
	time.Sleep(time.Second) // somewhere in the middle
	m.Stop()
	b.set(t, node, "_boot_config=DefaultBoot") // the old one after all
	b.upAgain(t, m, node)
	if got := b.exec(t, node, "cat /etc/os-release /etc/motd 2>/dev/null; ls /opt"); got != old {
		t.Errorf("after a cut power the old image is %q instead of %q", got, old)
	}
	b.set(t, node, "_boot_config=Changed")
	b.upAgain(t, m, node)
	if got := b.exec(t, node, "cat /opt/new/file; cat /etc/motd"); got != "new\nchanged" {
		t.Errorf("the new image has %q", got)
	}
	var written, of int
	if n, err := fmt.Sscanf(b.rootStep(t, node), "disked: %d of %d", &written, &of); n != 2 || written == 0 || written > 60 || of < 1000 {
		t.Errorf("%d of %d files were written for a change of two, %v", written, of, err)
	}
}

// changeImage makes the image Changed: DefaultImage with two other files.
func (b *bench) changeImage(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"opt/new/file": "new\n", "etc/motd": "changed\n"} {
		os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	tar := filepath.Join(dir, "changed.tar")
	for _, command := range [][]string{{"cp", b.Assets.Image, tar}, {"tar", "--delete", "-f", tar, "./etc/motd"}, {"tar", "-C", dir, "--owner=0", "--group=0", "-rf", tar, "./opt/new", "./etc/motd"}} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v %s", command, err, out)
		}
	}
	b.muster(t, "image", "import", "Changed", tar)
}
