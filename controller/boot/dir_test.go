package boot

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDir(t *testing.T) {
	root := t.TempDir()
	dir := Dir(filepath.Join(root, "ipxe"))
	os.MkdirAll(filepath.Join(string(dir), "folder.efi"), 0o755)
	os.WriteFile(filepath.Join(string(dir), "snponly.efi"), []byte("program"), 0o644)
	os.WriteFile(filepath.Join(string(dir), "secret.conf"), []byte("secret"), 0o644)
	os.WriteFile(filepath.Join(root, "outside.efi"), []byte("linked"), 0o644)
	os.Symlink("../outside.efi", filepath.Join(string(dir), "ipxe.efi"))
	for name, want := range map[string]string{"snponly.efi": "program", "ipxe.efi": "linked"} {
		f, size, err := dir.Open(name)
		if err != nil || !dir.Have(name) {
			t.Fatalf("%s: %v", name, err)
		}
		b, _ := io.ReadAll(f)
		f.Close()
		if string(b) != want || size != int64(len(want)) {
			t.Errorf("%s: %q, %d bytes", name, b, size)
		}
	}
	for _, name := range []string{"", ".", "..", "../outside.efi", "/etc/passwd", "secret.conf", ".efi", "x\\y.efi", "x\x00.efi", strings.Repeat("x", 300) + ".efi"} {
		if f, _, err := dir.Open(name); !errors.Is(err, ErrNotServed) || dir.Have(name) {
			t.Errorf("%q: %v, %v", name, f, err)
		}
	}
	_, _, err := dir.Open("undionly.kpxe")
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "package ipxe") || !strings.Contains(err.Error(), string(dir)) {
		t.Errorf("missing file: %v", err)
	}
	if _, _, err := dir.Open("folder.efi"); err == nil || dir.Have("folder.efi") {
		t.Error("a folder is served")
	}
}
