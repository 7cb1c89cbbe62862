package lab_test

import (
	"path/filepath"
	"strings"
	"testing"

	"muster/scripts/lab"
)

// fromISOWithBIOS, fromISOWithUEFI: a machine whose card cannot boot starts from
// an ISO, and boots what that is for and not what the head would give it.
func (b *bench) fromISOWithBIOS(t *testing.T) {
	b.fromISO(t, lab.Spec{Name: "cd-bios", MAC: "52:54:00:77:01:01", Firmware: lab.BIOS})
}

func (b *bench) fromISOWithUEFI(t *testing.T) {
	b.fromISO(t, lab.Spec{Name: "cd-uefi", MAC: "52:54:00:77:01:02", Firmware: lab.UEFI})
}

func (b *bench) fromISO(t *testing.T, spec lab.Spec) {
	bootconfig := "On-" + spec.Name
	b.muster(t, "bootconfig", "create", bootconfig, "--image", "DefaultImage", "--boot-style", "roram",
		"--kernel", b.Assets.Kernel, "--modules", b.Assets.Modules, "--cmdline", toAgent+" muster.test=<n[uid]>")
	spec.CDROM = filepath.Join(b.Dir, spec.Name+".iso")
	m, node := b.own(t, spec)
	defer m.Stop()
	b.muster(t, "bootconfig", "mkiso", bootconfig, spec.CDROM, "--node", node)
	b.restart(t, m)
	b.awaitUp(t, node, 0)
	b.checkExec(t, node)
	var got struct{ UID string }
	if err := b.Head.JSON(b.ctx, &got, "node", "get", node); err != nil {
		t.Fatal(err)
	}
	if cmdline := b.exec(t, node, "cat", "/proc/cmdline"); !strings.Contains(cmdline, "muster.test="+got.UID) {
		t.Errorf("it booted with %q", cmdline)
	}
	for _, s := range b.timeline(node) {
		if s.Error != "" {
			t.Error(s)
		}
	}
}
