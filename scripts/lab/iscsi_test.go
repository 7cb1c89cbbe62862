package lab_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/scripts/lab"
)

// overISCSI: the image stays with the head and is read from there; the
// firmware's own initiator boots a disk from the same target. The machine stays
// up with its image over iSCSI for headKilled.
func (b *bench) overISCSI(t *testing.T) {
	m, node := b.own(t, lab.Spec{Name: "iscsi", MAC: "52:54:00:77:02:04", Memory: 384}, "_boot_style=iscsi")
	b.upAgain(t, m, node)
	b.checkRoot(t, node, "overlayfs")
	b.exec(t, node, "pgrep -f '^@muster-agent stream' >/dev/null && test $(cat /sys/block/nbd0/size) -gt 0")
	for _, s := range b.timeline(node) {
		if s.Step == "image" && !strings.Contains(s.Detail, "over iSCSI from 10.77.0.1:3260") {
			t.Errorf("the image was %q", s.Detail)
		}
	}
	b.iscsiNode = node
}

// iscsiDisk: the firmware's own initiator boots a disk from the same target.
func (b *bench) iscsiDisk(t *testing.T, m *lab.Machine, node string) {
	// Less than a cylinder is no disk to iPXE.
	content := filepath.Join(b.Dir, "sector")
	if err := os.WriteFile(content, append(bootSector("\r\nthe image boots\r\n"), make([]byte, 16<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	b.muster(t, "image", "create", "Sector")
	b.muster(t, "image", "upload", "Sector", content)
	var image struct {
		Exports map[string]struct {
			Target struct{ Location string } `json:"targetcli"`
		}
	}
	if err := b.Head.JSON(b.ctx, &image, "image", "get", "Sector"); err != nil {
		t.Fatal(err)
	}
	for _, e := range image.Exports {
		b.set(t, node, "_boot_style=sanboot", "_ipxe_sanboot=iscsi:10.77.0.1::::"+e.Target.Location)
	}
	from := m.Console.Mark()
	b.restart(t, m)
	b.says(t, m, from, "the image boots")
	t.Log(m.Console.Tail(5))
}
