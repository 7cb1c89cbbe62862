package library_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/controller/api/apitest"
	"muster/controller/library"
	"muster/shared/object"
)

func TestSameContentIsKeptOnce(t *testing.T) {
	l := start(t)
	content := bytesOf(100_000, 11)
	for _, name := range []string{"a", "b", "c"} {
		l.Create("images", apitest.Map{"name": name})
		l.OK("PUT", "/image/"+name+"/content", content)
	}
	refs := func(name string) string {
		return fmt.Sprint(apitest.Decode[apitest.Map](t, l.OK("GET", "/image/"+name+"/content/info", nil))["refcnt"])
	}
	if refs("a") != "3" || len(l.files(t)) != 2 { // its pieces and its index
		t.Errorf("refcnt %s, %d files", refs("a"), len(l.files(t)))
	}
	l.OK("DELETE", "/image/b/content", nil)
	l.OK("DELETE", "/image/c", nil)
	if refs("a") != "1" {
		t.Errorf("refcnt %s", refs("a"))
	}
	if a := l.Do("GET", "/image/a/content", nil); !bytes.Equal(a.Raw, content) {
		t.Error("the content that one image still has is gone")
	}
}

func TestSweep(t *testing.T) {
	l := start(t)
	l.Create("images", `{"name":"i"}`)
	l.Create("bootconfigs", `{"name":"b"}`)
	l.OK("PUT", "/image/i/content", "old")
	l.OK("PUT", "/image/i/content", "new")
	l.OK("PUT", "/bootconfig/b/kernel", "kernel")
	l.OK("PUT", "/bootconfig/b/initramfs", "initramfs")
	used := func() map[string]bool {
		out := map[string]bool{}
		img := l.Registry.All(object.KindImage)[0].(*object.Image)
		bc := l.Registry.All(object.KindBootconfig)[0].(*object.Bootconfig)
		for _, v := range img.Versions {
			out[v.File.Pieces], out[v.File.Index] = true, true
		}
		out[img.Squash().SHA256], out[bc.Kernel.SHA256], out[bc.Initramfs.SHA256] = true, true, true
		return out
	}
	// A file that was added but is not yet named by an object stays.
	_, release, err := l.blobs.Add(strings.NewReader("pending"), 100, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	sweep := func(grace time.Duration, removed, left int) {
		t.Helper()
		n, err := l.blobs.Sweep(t.Context(), used, grace, time.Now().Add(time.Minute))
		if files := l.files(t); err != nil || n != removed || len(files) != left {
			t.Errorf("%d removed, %d left, want %d and %d; %v", n, len(files), removed, left, err)
		}
	}
	// Each version has the list of its pieces and an index; the old one stays.
	sweep(time.Hour, 0, 7)
	l.OK("DELETE", "/image/i/version/1", nil)
	sweep(time.Second, 2, 5)
	release()
	sweep(time.Second, 1, 4)
	for path, content := range map[string]string{"/image/i/content": "new", "/bootconfig/b/kernel": "kernel", "/bootconfig/b/initramfs": "initramfs"} {
		if a := l.Do("GET", path, nil); string(a.Raw) != content {
			t.Errorf("%s is %q", path, a.Raw)
		}
	}
	// What an interrupted upload left is removed at the next start.
	if err := os.WriteFile(filepath.Join(l.dir, "tmp", "upload-1"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := library.OpenBlobs(l.dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if n := len(l.files(t)); n != 4 {
		t.Errorf("%d files after a new start", n)
	}
}

func TestUploadsAtOnce(t *testing.T) {
	l := start(t)
	const n = 8
	for i := range n {
		l.Create("images", apitest.Map{"name": fmt.Sprint("i", i)})
	}
	l.Create("images", `{"name":"all"}`)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			own, same := bytesOf(200_000, byte(2*i+1)), bytesOf(100_000, 77)
			l.OK("PUT", fmt.Sprintf("/image/i%d/content", i), own)
			l.OK("PUT", "/image/all/content", own)
			if a := l.Do("GET", fmt.Sprintf("/image/i%d/content", i), nil); !bytes.Equal(a.Raw, own) {
				t.Errorf("image %d has other bytes", i)
			}
			l.OK("PUT", fmt.Sprintf("/image/i%d/content", i), same)
		})
	}
	all.Wait()
	a := l.Do("GET", "/image/all/content", nil)
	whole := false
	for i := range n {
		whole = whole || bytes.Equal(a.Raw, bytesOf(200_000, byte(2*i+1)))
	}
	if !whole {
		t.Error("of uploads at once, the result is none of them")
	}
	l.files(t)
}

func TestTooLargeAndFullDisk(t *testing.T) {
	l := start(t)
	_, _, err := l.blobs.Add(strings.NewReader("more than ten bytes"), 10, time.Now(), nil)
	if err == nil || !strings.Contains(err.Error(), "larger than 10 bytes") {
		t.Errorf("too large: %v", err)
	}
	if _, _, err := l.blobs.Add(io.MultiReader(strings.NewReader("x"), broken{}), 10, time.Now(), nil); err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Errorf("broken off: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(l.dir, "tmp")); err != nil {
		t.Fatal(err)
	}
	l.Create("images", `{"name":"i"}`)
	if a := l.Do("PUT", "/image/i/content", "x"); a.Status != http.StatusInternalServerError || strings.Contains(a.Reason, l.dir) {
		t.Errorf("a store that cannot be written: %d %s", a.Status, a.Raw)
	}
	if len(l.files(t)) != 0 {
		t.Error("something was stored")
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
