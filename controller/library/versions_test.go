package library_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/controller/api/apitest"
	"muster/controller/library"
	"muster/images/chunk"
	"muster/images/delta"
	"muster/images/tree"
	"muster/shared/object"
	"muster/shared/wire"
)

// root makes a squashfs of files.
func root(t *testing.T, files map[string]string) []byte {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "image")
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{dir, out, "-quiet", "-no-progress", "-comp", "zstd", "-no-fragments", "-noI", "-noId", "-mkfs-time", "0", "-all-time", "0"}
	if text, err := exec.Command("mksquashfs", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func dpkg(version string) string {
	return "Package: tool\nStatus: install ok installed\nArchitecture: amd64\nVersion: " + version + "\n\nPackage: old\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n"
}

func TestVersions(t *testing.T) {
	l := start(t)
	l.Create("images", `{"name":"i"}`)
	l.Create("bootconfigs", `{"name":"b","image":"i"}`)
	big := string(bytesOf(600_000, 7))
	files := map[string]string{"etc/motd": "hello\n", "usr/lib/big": big, "var/lib/dpkg/status": dpkg("1.0")}
	first := root(t, files)
	files["etc/motd"], files["var/lib/dpkg/status"], files["new"] = "hello again\n", dpkg("1.1"), "x"
	second := root(t, files)
	l.OK("PUT", "/image/i/content", first)
	l.OK("PUT", "/image/i/content", second)
	l.OK("PUT", "/image/i/content", "no squashfs at all")

	type version struct {
		object.Version
		Current bool
		Pinned  []string
	}
	list := func() []version { return apitest.Decode[[]version](t, l.OK("GET", "/image/i/versions", nil)) }
	vs := list()
	if len(vs) != 3 || vs[0].Number != 1 || vs[2].Number != 3 || !vs[2].Current || vs[0].Size != int64(len(first)) || vs[0].Digest == vs[1].Digest || vs[1].By == "" {
		t.Fatalf("%+v", vs)
	}
	for n, want := range map[string][]byte{"1": first, "2": second, "3": []byte("no squashfs at all")} {
		if a := l.Do("GET", "/image/i/version/"+n+"/content", nil); !bytes.Equal(a.Raw, want) {
			t.Errorf("version %s has other bytes", n)
		}
	}
	a := l.Do("GET", "/image/i/version/1/content", nil, "Range", fmt.Sprintf("bytes=50-%d", len(first)-7))
	if a.Status != 206 || !bytes.Equal(a.Raw, first[50:len(first)-6]) {
		t.Errorf("a range: status %d, %d bytes", a.Status, len(a.Raw))
	}
	d := apitest.Decode[library.Difference](t, l.OK("GET", "/image/i/diff?from=1&to=2", nil))
	want := []tree.Change{{Path: "etc/motd", What: tree.Changed, Size: 12}, {Path: "new", What: tree.Added, Size: 1}, {Path: "var/lib/dpkg/status", What: tree.Changed, Size: int64(len(dpkg("1.1")))}}
	if fmt.Sprint(d.Files) != fmt.Sprint(want) || fmt.Sprint(d.Packages) != "[{tool:amd64 1.0 1.1}]" {
		t.Errorf("%+v", d)
	}
	l.Refused("GET", "/image/i/diff?from=1&to=3", nil)
	l.Refused("GET", "/image/i/diff?from=1&to=9", nil)

	l.Refused("POST", "/image/i/rollback", `{"version":"9"}`)
	l.OK("POST", "/image/i/rollback", `{"version":"1"}`)
	if a := l.Do("GET", "/image/i/content", nil); !bytes.Equal(a.Raw, first) {
		t.Error("it is not rolled back")
	}
	for _, bad := range []string{"2", "a b", "", "../x", "a:b"} {
		l.Refused("POST", "/image/i/tag", apitest.Map{"version": "2", "tag": bad})
	}
	l.OK("POST", "/image/i/tag", `{"version":"2","tag":"good"}`)
	l.OK("PATCH", "/bootconfig/b", `{"image":"i:good"}`)
	if bc := l.Get("bootconfig/b"); bc["image"] != "i" || bc["image_version"] != "good" {
		t.Errorf("pinned: %v", bc)
	}
	if vs := list(); len(vs[1].Pinned) != 1 {
		t.Errorf("%+v", vs[1])
	}
	l.Refused("DELETE", "/image/i/version/2", nil)
	l.Refused("DELETE", "/image/i/version/1", nil)
	l.OK("PATCH", "/bootconfig/b", `{"image":"i:9"}`)
	if reason := l.Refused("GET", "/bootconfig/b/errors", nil); !strings.Contains(reason, `no version or tag "9"`) {
		t.Error(reason)
	}
	l.OK("PATCH", "/bootconfig/b", `{"image":"i"}`)
	if bc := l.Get("bootconfig/b"); bc["image_version"] != nil {
		t.Errorf("it still does not follow: %v", bc)
	}
	l.OK("DELETE", "/image/i/version/3", nil)
	l.OK("PUT", "/image/i/content", second)
	if vs := list(); vs[len(vs)-1].Number != 4 || vs[len(vs)-1].Digest != vs[1].Digest {
		t.Errorf("%+v", vs)
	}
}

// TestChunkEndpoints asks as agents do.
func TestChunkEndpoints(t *testing.T) {
	l := start(t)
	l.Create("images", `{"name":"i"}`)
	files := map[string]string{}
	for i := range 200 {
		files[fmt.Sprintf("file-%03d", i)] = string(bytesOf(500+i, byte(i)))
	}
	l.OK("PUT", "/image/i/content", root(t, files))
	files["file-100"] = "changed"
	l.OK("PUT", "/image/i/content", root(t, files))
	find := func(version string) wire.Image {
		return apitest.Decode[wire.Image](t, l.OK("GET", wire.PathImage+"i?version="+version, nil))
	}
	one, two := find("1"), find("2")
	whole := l.Do("GET", wire.PathIndex+one.Tree, nil).Raw
	if whole[0] != wire.IndexWhole {
		t.Fatal("a delta from nothing that was named")
	}
	old, err := delta.Apply(nil, whole[1:], int(one.TreeSize))
	if err != nil || chunk.Sum(old).String() != one.Tree {
		t.Fatal(err)
	}
	part := l.Do("GET", wire.PathIndex+two.Tree+"?have="+one.Tree, nil).Raw
	now, err := delta.Apply(old, part[1:], int(two.TreeSize))
	if part[0] != wire.IndexDelta || len(part) > len(whole)/10 || err != nil || chunk.Sum(now).String() != two.Tree {
		t.Errorf("a delta of %d bytes where the whole has %d: %v", len(part), len(whole), err)
	}
	if a := l.Do("GET", wire.PathIndex+two.Tree+"?have="+strings.Repeat("0", 64), nil); a.Raw[0] != wire.IndexWhole {
		t.Error("a delta from what is not here")
	}
	for _, bad := range []string{two.SHA256, two.Pieces, strings.Repeat("0", 64), "..", "x"} {
		l.Refused("GET", wire.PathIndex+bad, nil)
	}
	m, err := tree.Decode(now)
	if err != nil {
		t.Fatal(err)
	}
	var want []chunk.Ref
	var list []byte
	m.Walk(func(e *tree.Entry) error {
		for _, p := range e.Parts {
			want, list = append(want, p.Chunk), append(list, p.Chunk.Digest[:]...)
		}
		return nil
	})
	list = append(list, make([]byte, 32)...)
	r, codec := bytes.NewReader(l.Do("POST", wire.PathChunks, list).Raw), chunk.NewCodec()
	for _, ref := range want {
		stored, e, err := chunk.ReadFrame(r, nil)
		if err == nil {
			_, err = codec.Decode(nil, stored, e, ref)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, e, err := chunk.ReadFrame(r, nil); e != chunk.Absent || err != nil || r.Len() > 0 {
		t.Errorf("a chunk that is not here: %v, %v, %d bytes left", e, err, r.Len())
	}
	// Nodes that share: what one was given the next does not get, and nobody
	// else has a say in it.
	given := func(most int, node string) int {
		return len(apitest.Decode[[]uint32](t, l.OK("POST", wire.PathSpare, wire.Spare{Chunks: list, Most: most}, apitest.AsNode, node)))
	}
	distinct := map[chunk.Digest]bool{}
	for _, ref := range want {
		distinct[ref.Digest] = true
	}
	if got := []int{given(2, "a"), given(4096, "b"), given(4096, "c")}; !slices.Equal(got, []int{2, len(distinct) - 2, 0}) {
		t.Errorf("three nodes got %v of %d", got, len(distinct))
	}
	l.Refused("POST", wire.PathSpare, wire.Spare{Chunks: list, Most: 1})
	for _, bad := range []wire.Spare{{Chunks: list}, {Chunks: list, Most: wire.MaxChunks + 1}, {Chunks: list[1:], Most: 1}, {Most: 1}} {
		l.Refused("POST", wire.PathSpare, bad, apitest.AsNode, "a")
	}
	l.Refused("POST", wire.PathChunks, "")
	l.Refused("POST", wire.PathChunks, "31 bytes or so")
	l.Refused("POST", wire.PathChunks, make([]byte, 32*(wire.MaxChunks+1)))
}

func TestFsckAndSweep(t *testing.T) {
	l := start(t)
	l.Create("images", `{"name":"i"}`)
	noise := make([]byte, 900_000)
	rand.NewChaCha8([32]byte{}).Read(noise)
	sound := root(t, map[string]string{"big": string(noise), "small": "x"})
	l.OK("PUT", "/image/i/content", sound)
	fsck := func() library.Health { return apitest.Decode[library.Health](t, l.OK("POST", "/images/fsck", nil)) }
	if h := fsck(); h.Damaged != 0 || len(h.Versions) != 0 || h.Bytes < int64(len(sound))/2 {
		t.Errorf("%+v", h)
	}
	packs, _ := filepath.Glob(filepath.Join(l.dir, "chunks", "*.pack"))
	for _, p := range packs {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/3] ^= 4
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if h := fsck(); h.Damaged == 0 || len(h.Versions) != 1 || !strings.HasPrefix(h.Versions[0], "i:1: ") {
		t.Errorf("%+v", h)
	}
	l.OK("PUT", "/image/i/content", sound)
	if h := fsck(); h.Damaged != 0 || len(h.Versions) != 0 {
		t.Errorf("after the same content again: %+v", h)
	}
	if _, err := l.SweepChunks(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := l.Do("GET", "/image/i/content", nil); !bytes.Equal(a.Raw, sound) {
		t.Error("the sweep took what is in use")
	}
	l.OK("DELETE", "/image/i", nil)
	if _, err := l.SweepChunks(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(l.dir, "chunks", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

const uploaderDir = "MUSTER_TEST_UPLOADER"

// TestKilled has a process that stores images killed at any moment: what it
// acknowledged is there, and nothing else stays for good.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(uploaderDir); dir != "" {
		uploader(dir)
	}
	dir := t.TempDir()
	acknowledged := map[int]object.File{}
	for round := range 6 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), uploaderDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s := bufio.NewScanner(out)
		for n := 0; n <= round*2 && s.Scan(); n++ {
			var f object.File
			var i int
			if _, err := fmt.Sscan(s.Text(), &i); err != nil {
				t.Fatal(s.Text())
			}
			if err := json.Unmarshal(s.Bytes()[bytes.IndexByte(s.Bytes(), '{'):], &f); err != nil {
				t.Fatal(err)
			}
			acknowledged[i] = f
		}
		time.Sleep(time.Duration(round*3) * time.Millisecond) // another moment each time; any will do
		cmd.Process.Kill()
		cmd.Wait()
	}
	b, err := library.OpenBlobs(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if len(acknowledged) < 6 {
		t.Fatalf("only %d uploads came through", len(acknowledged))
	}
	for i, f := range acknowledged {
		c, err := b.OpenContent(&f)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := got.ReadFrom(c); err != nil || !bytes.Equal(got.Bytes(), imageNo(i)) {
			t.Errorf("upload %d: %d bytes, %v", i, got.Len(), err)
		}
		c.Close()
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "tmp", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// imageNo makes contents that have much in common.
func imageNo(i int) []byte {
	return append(bytesOf(700_000, 3), bytesOf(300_000, byte(i*2+5))...)
}

// uploader stores images until it is killed.
func uploader(dir string) {
	b, err := library.OpenBlobs(dir, slog.New(slog.DiscardHandler))
	for i := int(time.Now().UnixNano() % 1000); err == nil; i++ {
		f, release, aerr := b.AddImage(context.Background(), bytes.NewReader(imageNo(i)), 1<<30, time.Now())
		if err = aerr; err == nil {
			raw, _ := json.Marshal(f)
			fmt.Printf("%d %s\n", i, raw)
			release()
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
