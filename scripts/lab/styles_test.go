package lab_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"muster/scripts/lab"
)

// bootSector is what a BIOS boots: it says text on the serial line and stops.
func bootSector(text string) []byte {
	code := []byte{
		0xfa, 0xfc, // cli; cld
		0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
		0xbe, 0x17, 0x7c, // mov si, text
		0xac, 0x84, 0xc0, 0x74, 0x06, // next: lodsb; test al, al; jz stop
		0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5, // mov dx, 0x3f8; out dx, al; jmp next
		0xf4, 0xeb, 0xfd, // stop: hlt; jmp stop
	}
	sector := append(append(code, text...), make([]byte, 512)...)[:512]
	sector[510], sector[511] = 0x55, 0xaa
	return sector
}

func (b *bench) set(t *testing.T, node string, attributes ...string) {
	t.Helper()
	if len(attributes) > 0 {
		b.muster(t, append([]string{"node", "attributes", node, "set"}, attributes...)...)
	}
}

// says waits until a machine says a line on its console from a mark on.
func (b *bench) says(t *testing.T, m *lab.Machine, from int, line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := m.Console.WaitFor(ctx, from, line); err != nil {
		t.Fatal(err)
	}
}

// ownDisk: with next and sanboot the machine boots what its disk holds.
func (b *bench) ownDisk(t *testing.T) {
	m, node := b.own(t, lab.Spec{Name: "owndisk", MAC: "52:54:00:77:02:01", Disk: 1 << 20, Memory: 128}, "_boot_style=next")
	defer m.Stop()
	if err := overwrite(filepath.Join(b.Dir, "owndisk.disk"), 0, bootSector("\r\nthe disk boots\r\n")); err != nil {
		t.Fatal(err)
	}
	for _, style := range []string{"next", "sanboot"} {
		b.set(t, node, "_boot_style="+style)
		from := m.Console.Mark()
		b.restart(t, m)
		b.says(t, m, from, "the disk boots")
		t.Logf("%s:\n%s", style, m.Console.Tail(4))
	}
}

// liveISO: an ISO that the head holds is booted over the network as a disc.
func (b *bench) liveISO(t *testing.T) {
	iso := filepath.Join(b.Dir, "live.iso")
	b.muster(t, "bootconfig", "create", "InISO", "--image", "DefaultImage", "--boot-style", "roram",
		"--kernel", b.Assets.Kernel, "--modules", b.Assets.Modules, "--cmdline", toAgent)
	b.muster(t, "bootconfig", "mkiso", "InISO", iso)
	b.muster(t, "repo", "create", "disc")
	b.muster(t, "repo", "iso", "disc", iso)
	os.Remove(iso)
	b.muster(t, "bootconfig", "create", "Live", "--repo", "disc", "--boot-style", "live")
	m, node := b.own(t, lab.Spec{Name: "live", MAC: "52:54:00:77:02:02"}, "_boot_config=Live")
	defer m.Stop()
	b.restart(t, m)
	b.awaitUp(t, node, 0)
	b.checkExec(t, node)
	if got := b.exec(t, node, "dmesg | grep -c BOOT_IMAGE"); got == "0" {
		t.Error("it was not GRUB on the ISO that started the kernel")
	}
}
