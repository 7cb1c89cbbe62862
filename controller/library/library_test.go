package library_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/library"
	"muster/shared/object"
	"muster/shared/wire"
)

type lib struct {
	*apitest.Head
	*library.Library
	blobs *library.Blobs
	dir   string
}

func start(t testing.TB) *lib {
	l := &lib{dir: t.TempDir()}
	var err error
	if l.blobs, err = library.OpenBlobs(l.dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	l.Head = apitest.Start(t, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		l.Library = library.New(library.Options{Objects: h.Registry, Blobs: l.blobs, Head: apitest.HeadName,
			Log: slog.New(slog.DiscardHandler), Now: time.Now, Extra: func() []string { return nil }})
		return [][]api.Route{l.Library.Routes()}
	}})
	return l
}

func bytesOf(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*seed + byte(i>>8)
	}
	return b
}

func kernel() []byte {
	b := bytesOf(64<<10, 3)
	b[0x1f1] = 4
	binary.LittleEndian.PutUint32(b[0x1f4:], uint32(len(b)-5*512)/16)
	copy(b[0x202:], "HdrS")
	return b
}

func squash(t *testing.T) []byte {
	tool, err := exec.LookPath("mksquashfs")
	if err != nil {
		t.Fatal("mksquashfs is not installed: scripts/deps test")
	}
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "image")
	for i := range 20 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), bytesOf(10_000, byte(i)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := exec.Command(tool, dir, out, "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// files gives what lies in the store of files, by digest.
func (l *lib) files(t *testing.T) []string {
	paths, err := filepath.Glob(filepath.Join(l.dir, "??", "*"))
	if err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(l.dir, "tmp", "*"))
	if len(left) > 0 {
		t.Errorf("unfinished uploads are left: %v", left)
	}
	for i := range paths {
		paths[i] = filepath.Base(paths[i])
	}
	return paths
}

func digest(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }

func TestUploadAndDownload(t *testing.T) {
	l := start(t)
	l.Create("bootconfigs", `{"name":"b"}`)
	l.Create("images", `{"name":"i"}`)
	for _, path := range []string{"/bootconfig/b/kernel", "/bootconfig/b/initramfs", "/image/i/content"} {
		if a := l.Do("GET", path, nil); a.Status != 404 || a.Reason == "" {
			t.Errorf("%s before any upload: %d %s", path, a.Status, a.Raw)
		}
		if a := l.Do("DELETE", path, nil); a.Status != 404 {
			t.Errorf("deleting %s before any upload: %d %s", path, a.Status, a.Raw)
		}
		for _, content := range [][]byte{bytesOf(3<<20, 7), {}, []byte(`{"success":true}`), bytesOf(100_000, 5)} {
			l.OK("PUT", path, content, "Content-Type", "application/x-www-form-urlencoded")
			a := l.Do("GET", path, nil)
			if a.Status != 200 || !bytes.Equal(a.Raw, content) || a.Header.Get("Content-Type") != "application/octet-stream" {
				t.Errorf("%s: %d bytes sent, status %d with %d bytes read", path, len(content), a.Status, len(a.Raw))
			}
		}
		if a := l.Do("GET", path, nil, "Range", "bytes=10-19"); a.Status != 206 || !bytes.Equal(a.Raw, bytesOf(100_000, 5)[10:20]) {
			t.Errorf("%s, a part: %d with %d bytes", path, a.Status, len(a.Raw))
		}
	}
	content := bytesOf(100_000, 5)
	sum := sha1.Sum(content)
	img := l.Get("image/i")
	squash := img["content"].(apitest.Map)["cwsquash"].(apitest.Map)
	info := apitest.Decode[apitest.Map](t, l.OK("GET", "/image/i/content/info", nil))
	stat := apitest.Decode[apitest.Map](t, l.OK("GET", "/image/i/content/stat", nil))
	for key, value := range map[string]any{"chksum": "sha1:" + hex.EncodeToString(sum[:]), "size": "100000", "sha256": digest(content)} {
		if fmt.Sprint(squash[key]) != value || fmt.Sprint(info[key]) != value {
			t.Errorf("%s is %v and %v, want %v", key, squash[key], info[key], value)
		}
	}
	if squash["filename"] != squash["uid"] || len(squash["uid"].(string)) != 32 || info["mtime"] != squash["mtime"] || stat["mtime"] != squash["mtime"] ||
		fmt.Sprint(stat["size"]) != "100000" || info["fmt"] != "cwsquash" || fmt.Sprint(info["refcnt"]) != "1" {
		t.Errorf("content %v, info %v, stat %v", squash, info, stat)
	}
	stamps := img["content"].(apitest.Map)
	if stamps["last_modified_by"] != apitest.Admin || stamps["last_modified_on"] != apitest.HeadName || stamps["last_modified"] != squash["mtime"] {
		t.Errorf("stamps of the content: %v", stamps)
	}
	// The content is no part of what a replacement resets, and cannot be set.
	l.OK("PUT", "/image/i", `{"name":"i"}`)
	l.Refused("PATCH", "/image/i", `{"content":null}`)
	if a := l.Do("GET", "/boot/v1/file/"+digest(content)+"/any.name", nil); !bytes.Equal(a.Raw, content) {
		t.Errorf("by digest: %d with %d bytes", a.Status, len(a.Raw))
	}
	for _, name := range []string{digest([]byte("none")), "x", "..", strings.Repeat("0", 64), "%2e%2e%2ftmp"} {
		if a := l.Do("GET", "/boot/v1/file/"+name+"/x", nil); a.Status != 404 {
			t.Errorf("file %s: %d", name, a.Status)
		}
	}
	l.OK("DELETE", "/image/i/content", nil)
	l.Refused("GET", "/image/i/content", nil)
	l.Refused("GET", "/image/i/content/info", nil)
	l.Refused("GET", "/image/i/content/stat", nil)
	l.Refused("GET", "/image/nobody/content", nil)
	l.Refused("PUT", "/image/nobody/content", "x")
}

func TestISO(t *testing.T) {
	l := start(t)
	uid := l.Create("repos", `{"name":"r"}`)
	for _, path := range []string{"/repo/r/iso", "/repo/r/iso/stat"} {
		l.Refused("GET", path, nil)
	}
	l.Refused("DELETE", "/repo/r/iso", nil)
	file := filepath.Join(t.TempDir(), "x.iso")
	if out, err := exec.Command("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", file, "library.go").CombinedOutput(); err != nil {
		t.Fatalf("xorriso: %v %s", err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l.OK("PUT", "/repo/r/iso", content)
	l.Refused("PUT", "/repo/r/iso", bytesOf(100_000, 5))
	if a := l.Do("GET", "/repo/r/iso", nil); !bytes.Equal(a.Raw, content) {
		t.Errorf("%d bytes sent, status %d with %d bytes read", len(content), a.Status, len(a.Raw))
	}
	stat := apitest.Decode[apitest.Map](t, l.OK("GET", "/repo/"+uid+"/iso/stat", nil))
	iso := l.Get("repo/r")["iso"].(apitest.Map)
	if fmt.Sprint(stat["size"]) != fmt.Sprint(len(content)) || stat["mtime"] != iso["mtime"] || iso["problem"] != nil {
		t.Errorf("stat %v, object %v", stat, iso)
	}
	l.OK("PATCH", "/repo/r", `{"description":"x"}`)
	l.Refused("PATCH", "/repo/r", `{"iso":null}`)
	l.OK("DELETE", "/repo/r/iso", nil)
	l.Refused("GET", "/repo/r/iso/stat", nil)
	if r := l.Get("repo/r"); r["iso"] != nil || r["tree"] != nil || r["description"] != "x" {
		t.Errorf("without its ISO the repo is %v", r)
	}
}

// send makes a request by hand: the head's first lines, then as much of the
// body as is given, then the connection is closed for writing.
func (l *lib) send(t *testing.T, head string, body []byte, hangUp bool) string {
	conn, err := net.Dial("tcp", l.Server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(conn, "%s\r\nHost: head\r\n\r\n", head)
	conn.Write(body)
	if hangUp {
		conn.(*net.TCPConn).CloseWrite()
	}
	buf := make([]byte, 4096)
	n, _ := conn.Read(buf)
	return string(buf[:n])
}

func TestCutOffUploadKeepsTheOldContent(t *testing.T) {
	l := start(t)
	l.Create("images", `{"name":"i"}`)
	old := bytesOf(50_000, 9)
	l.OK("PUT", "/image/i/content", old)
	before := string(l.OK("GET", "/image/i", nil))
	for _, head := range []string{
		"PUT /api/v1/image/i/content HTTP/1.1\r\nContent-Length: 1000000",
		"PUT /api/v1/image/i/content HTTP/1.1\r\nContent-Length: 1000000\r\nContent-Type: multipart/form-data; boundary=x",
		"PUT /api/v1/image/i/content HTTP/1.1\r\nTransfer-Encoding: chunked",
	} {
		body := []byte("--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\nhalf of a file")
		if strings.Contains(head, "chunked") {
			body = []byte("5\r\nhello\r\n5\r\nhe")
		}
		if got := l.send(t, head, body, true); strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("%s: %s", head, got)
		}
	}
	for _, form := range []string{"", "--x--\r\n", "nonsense", "--x\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\nno file\r\n--x--\r\n"} {
		l.Refused("PUT", "/image/i/content", form, "Content-Type", "multipart/form-data; boundary=x")
	}
	if after := string(l.OK("GET", "/image/i", nil)); after != before {
		t.Errorf("before %s\nafter  %s", before, after)
	}
	if a := l.Do("GET", "/image/i/content", nil); !bytes.Equal(a.Raw, old) {
		t.Error("the old content is gone")
	}
	if n := len(l.files(t)); n != 2 { // the image and the list of its pieces
		t.Errorf("%d files are kept", n)
	}
}

func TestFrozenIsRefusedBeforeTheBodyIsSent(t *testing.T) {
	l := start(t)
	l.Create("bootconfigs", `{"name":"b"}`)
	l.Create("images", `{"name":"i"}`)
	l.OK("PUT", "/bootconfig/b/kernel", kernel())
	l.OK("PATCH", "/bootconfig/b", `{"frozen":true}`)
	l.OK("PATCH", "/image/i", `{"frozen":true}`)
	for path, reason := range map[string]string{
		"/bootconfig/b/kernel": "Cannot modify frozen boot configuration.", "/bootconfig/b/initramfs": "Cannot modify frozen boot configuration.", "/image/i/content": "Cannot modify frozen image.",
	} {
		// Not one byte of the body is ever sent.
		got := l.send(t, "PUT /api/v1"+path+" HTTP/1.1\r\nContent-Length: 1000000000\r\nExpect: 100-continue", nil, false)
		if !strings.HasPrefix(got, "HTTP/1.1 409") || !strings.Contains(got, reason) {
			t.Errorf("%s: %s", path, got)
		}
		if got := l.Refused("DELETE", path, nil); got != reason {
			t.Errorf("deleting %s: %s", path, got)
		}
	}
	if a := l.Do("GET", "/bootconfig/b/kernel", nil); !bytes.Equal(a.Raw, kernel()) {
		t.Error("the kernel of the frozen boot configuration is gone")
	}
}

func TestForm(t *testing.T) {
	l := start(t)
	l.Create("bootconfigs", `{"name":"b"}`)
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	w.WriteField("comment", "not this")
	part, _ := w.CreateFormFile("kernel", "vmlinuz")
	part.Write(kernel())
	w.Close()
	l.OK("PUT", "/bootconfig/b/kernel", form.Bytes(), "Content-Type", w.FormDataContentType())
	if a := l.Do("GET", "/bootconfig/b/kernel", nil); !bytes.Equal(a.Raw, kernel()) {
		t.Errorf("%d bytes came back of %d", len(a.Raw), len(kernel()))
	}
}

// TestProblems: what cannot boot is stored as it came, and said so.
func TestProblems(t *testing.T) {
	l := start(t)
	l.Create("images", `{"name":"i"}`)
	l.Create("bootconfigs", `{"name":"b","image":"i"}`)
	sound := squash(t)
	problem := func(words ...string) {
		t.Helper()
		for path, prefix := range map[string]string{"/bootconfig/b/errors": "", "/bootconfigs/errors": "b: "} {
			if len(words) == 0 {
				l.OK("GET", path, nil)
				continue
			}
			reason := l.Refused("GET", path, nil)
			for _, w := range words {
				if !strings.Contains(reason, w) || !strings.HasPrefix(reason, prefix) {
					t.Errorf("%s: %q does not say %q", path, reason, w)
				}
			}
		}
	}
	problem("kernel: nothing was uploaded", "image i: nothing was uploaded", "muster image import i")
	l.OK("PUT", "/bootconfig/b/kernel", kernel())
	l.OK("PUT", "/image/i/content", sound)
	problem()
	if info := apitest.Decode[apitest.Map](t, l.OK("GET", "/image/i/content/info", nil)); info["problem"] != nil {
		t.Errorf("info of a sound image: %v", info)
	}
	for name, b := range map[string][]byte{"truncated": sound[:len(sound)-5000], "half": sound[:len(sound)/2], "not": bytesOf(10_000, 3), "empty": {}} {
		l.OK("PUT", "/image/i/content", b)
		info := apitest.Decode[apitest.Map](t, l.OK("GET", "/image/i/content/info", nil))
		text, _ := info["problem"].(string)
		if text == "" {
			t.Errorf("%s: info has no problem: %v", name, info)
		}
		problem("image i: " + text)
		if a := l.Do("GET", "/image/i/content", nil); !bytes.Equal(a.Raw, b) {
			t.Errorf("%s: the bytes are not those that were sent", name)
		}
	}
	l.OK("PUT", "/image/i/content", sound)
	l.OK("PUT", "/bootconfig/b/kernel", kernel()[:len(kernel())-1000])
	problem("truncated kernel")
	l.OK("PUT", "/bootconfig/b/kernel", "#!/bin/sh\n")
	problem("not a kernel")
	l.OK("PUT", "/bootconfig/b/kernel", kernel())
	l.OK("PUT", "/bootconfig/b/initramfs", "hello")
	problem("not an initramfs")
	l.OK("PUT", "/bootconfig/b/initramfs", "070701 and so on")
	problem()
	l.OK("PATCH", "/bootconfig/b", `{"boot_style":"next","image":null}`)
	problem()
	l.OK("PATCH", "/bootconfig/b", `{"boot_style":"roram"}`)
	problem("names no image")
	l.OK("PATCH", "/bootconfig/b", `{"image":"i"}`)
	problem()
	spoiled := bytes.Clone(sound)
	spoiled[len(spoiled)/2] ^= 1
	// The upload is a pack as it was sent.
	packed := func() string {
		paths, _ := filepath.Glob(filepath.Join(l.dir, "chunks", "*.pack"))
		for _, p := range paths {
			if st, err := os.Stat(p); err == nil && st.Size() == int64(len(sound)) {
				return p
			}
		}
		t.Fatal("no pack has the image")
		return ""
	}
	if err := os.WriteFile(packed(), spoiled, 0o600); err != nil {
		t.Fatal(err)
	}
	problem("image i: its file", "other bytes than were uploaded")
	if err := os.Truncate(packed(), 100); err != nil {
		t.Fatal(err)
	}
	problem("missing from this head's store")
	if reason := l.Refused("GET", "/image/i/content", nil); !strings.Contains(reason, "missing from this head's store") {
		t.Error(reason)
	}
	l.OK("PUT", "/image/i/content", sound) // the same content again repairs it
	problem()
	if a := l.Do("GET", "/image/i/content", nil); !bytes.Equal(a.Raw, sound) {
		t.Error("it is not repaired")
	}
	l.OK("DELETE", "/image/i", nil)
	problem("does not exist any more")
	// An installer could do without, but the reference is broken all the same.
	l.OK("PATCH", "/bootconfig/b", `{"kickstart":"ks.cfg"}`)
	problem("does not exist any more")
	l.Refused("GET", "/bootconfig/nobody/errors", nil)
}

func TestPieces(t *testing.T) {
	l := start(t)
	for i, n := range []int{0, 1, wire.PieceSize - 1, wire.PieceSize, wire.PieceSize + 1, 3*wire.PieceSize + 17} {
		name, content := fmt.Sprintf("i%d", i), bytesOf(n, byte(i))
		l.Create("images", apitest.Map{"name": name})
		l.OK("PUT", "/image/"+name+"/content", content)
		o, err := l.Registry.Find(object.KindImage, name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.blobs.Open(o.(*object.Image).Squash().Pieces)
		if err != nil {
			t.Fatal(err)
		}
		list, err := io.ReadAll(f)
		f.Close()
		var want []byte
		for piece := range slices.Chunk(content, wire.PieceSize) {
			sum := sha256.Sum256(piece)
			want = append(want, sum[:]...)
		}
		if err != nil || !bytes.Equal(list, want) {
			t.Errorf("%d bytes: the list has %d bytes, want %d (%v), or they differ", n, len(list), len(want), err)
		}
	}
}
