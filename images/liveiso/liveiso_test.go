package liveiso

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"muster/images/iso9660"
)

// iso makes an ISO that holds these files.
func iso(t *testing.T, files ...string) *iso9660.Image {
	t.Helper()
	if _, err := exec.LookPath("xorriso"); err != nil {
		t.Skip("no xorriso")
	}
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "x.iso")
	for _, f := range files {
		os.MkdirAll(filepath.Join(dir, filepath.Dir(f)), 0o755)
		if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := exec.Command("xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-o", out, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, _ := f.Stat()
	img, err := iso9660.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestFind(t *testing.T) {
	for _, tt := range []struct{ files, kernel, initrd, arg string }{
		{"images/pxeboot/vmlinuz images/pxeboot/initrd.img LiveOS/squashfs.img", "images/pxeboot/vmlinuz", "images/pxeboot/initrd.img", "root=live:{tree}LiveOS/squashfs.img"},
		{"casper/vmlinuz casper/initrd casper/filesystem.squashfs", "casper/vmlinuz", "casper/initrd", "url={iso}"},
		{"live/vmlinuz-6.1.0-13-amd64 live/initrd.img-6.1.0-13-amd64 live/filesystem.squashfs", "live/vmlinuz-6.1.0-13-amd64", "live/initrd.img-6.1.0-13-amd64", "boot=live"},
		{"live/vmlinuz live/initrd.img", "", "", ""},                                            // its file system is missing
		{"images/pxeboot/vmlinuz images/pxeboot/initrd.img images/install.img", "", "", ""},     // an installer
		{"casper/vmlinuz;x casper/initrd casper/filesystem.squashfs", "casper/vmlinuz", "", ""}, // no name for a URL
	} {
		got, ok := Find(iso(t, strings.Fields(tt.files)...))
		if tt.initrd == "" {
			if ok {
				t.Errorf("%s: found %+v", tt.files, got)
			}
			continue
		}
		if !ok || got.Kernel != tt.kernel || got.Initrd != tt.initrd || !strings.Contains(strings.Join(got.Args, " "), tt.arg) {
			t.Errorf("%s: found %+v, %v", tt.files, got, ok)
		}
	}
}
