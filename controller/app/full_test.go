package app_test

import (
	"bytes"
	"crypto/rand"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"muster/controller/app"
	"muster/controller/app/apptest"
	"muster/shared/filesystem/filesystemtest"
)

// TestFullDisk has a head whose disk fills up: what needs room is refused, what
// was there stays, nothing half is left, and with room again all goes on.
func TestFullDisk(t *testing.T) {
	dir := filesystemtest.Small(t, 64<<20)
	h := apptest.Start(t, func(c *app.Config) { c.Data = dir })
	h.OK("POST", "/bootconfigs", `{"name":"b"}`)
	h.OK("POST", "/images", `{"name":"i"}`)
	small, large := make([]byte, 1<<20), make([]byte, 80<<20)
	rand.Read(small)
	rand.Read(large)
	h.OK("PUT", "/image/i/content", small)
	h.OK("PUT", "/bootconfig/b/initramfs", small)
	used := func() (n int64) {
		out, err := exec.Command("du", "-sb", "--exclude=*.db", "--exclude=repos", dir).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range bytes.Fields(out)[0] {
			n = 10*n + int64(d-'0')
		}
		return n
	}
	before := used()
	full := func(what, method, path string, body any) {
		t.Helper()
		a := h.As(h.Token(), method, path, body)
		if a.Status != http.StatusInsufficientStorage || !strings.Contains(a.Reason, "full") || strings.Contains(a.Reason, dir) {
			t.Errorf("%s: %d %.300s", what, a.Status, a.Raw)
		}
		if after := used(); after > before+64<<10 {
			t.Errorf("%s: %d bytes are left behind", what, after-before)
		}
	}
	full("an image that does not fit", "PUT", "/image/i/content", large)
	full("a file", "PUT", "/bootconfig/b/initramfs", large)
	for _, path := range []string{"/image/i/content", "/bootconfig/b/initramfs"} {
		if a := h.As(h.Token(), "GET", path, nil); !bytes.Equal(a.Raw, small) {
			t.Errorf("%s has another content: %d, %d bytes", path, a.Status, len(a.Raw))
		}
	}

	ballast := filepath.Join(dir, "ballast")
	h.OK("POST", "/gitrepos", `{"name":"from","url":"https://192.0.2.1/x.git"}`)
	if err := os.WriteFile(ballast, large, 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	before = used()
	full("changes of a git repository", "POST", "/gitrepo/from/sync", `{"action":"pull"}`)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	h.OK("PUT", "/image/i/content", large[:1<<20])
}
