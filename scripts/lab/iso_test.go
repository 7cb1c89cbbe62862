package lab_test

import (
	"path/filepath"
	"testing"

	"muster/scripts/lab"
)

// fromISO: machines whose cards cannot boot start from an ISO, with BIOS and
// with UEFI, and boot what it is for and not what the head would give them.
func (b *bench) fromISO(t *testing.T) {
	b.muster(t, "bootconfig", "create", "OnDisc", "--image", "DefaultImage", "--boot-style", "roram",
		"--kernel", b.Assets.Kernel, "--modules", b.Assets.Modules, "--cmdline", lab.Cmdline+" muster.test=<n[uid]>")
	machines := map[string]*lab.Machine{}
	for _, spec := range []lab.Spec{
		{Name: "cd-bios", MAC: "52:54:00:77:01:01", Firmware: lab.BIOS},
		{Name: "cd-uefi", MAC: "52:54:00:77:01:02", Firmware: lab.UEFI},
	} {
		var created struct{ Name, UID string }
		b.muster(t, "node", "create", "--mac", spec.MAC)
		if err := b.Head.JSON(b.ctx, &created, "node", "get", spec.MAC); err != nil {
			t.Fatal(err)
		}
		spec.CDROM = filepath.Join(b.Dir, spec.Name+".iso")
		b.muster(t, "bootconfig", "mkiso", "OnDisc", spec.CDROM, "--node", created.Name)
		machines[created.Name] = b.switchOn(t, spec)
	}
	for node, m := range machines {
		b.awaitUp(t, node, 0)
		b.checkExec(t, node)
		var got struct{ UID string }
		if err := b.Head.JSON(b.ctx, &got, "node", "get", node); err != nil {
			t.Fatal(err)
		}
		b.exec(t, node, "grep -q muster.test="+got.UID+" /proc/cmdline")
		for _, s := range b.timeline(node) {
			if s.Error != "" {
				t.Errorf("%s: %s", m.Spec.Name, s)
			}
		}
		m.Stop()
	}
}
