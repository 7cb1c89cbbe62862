package iso9660

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
)

// handmade is an image of a few sectors: a file in two pieces, a directory, a
// link, and a directory that stands for another one.
func handmade() []byte {
	b := make([]byte, 24*sector)
	d := b[systemArea:]
	d[0], d[6] = 1, 1
	copy(d[1:], "CD001")
	binary.LittleEndian.PutUint32(d[80:], 24)
	binary.LittleEndian.PutUint16(d[128:], sector)
	copy(d[156:], rawRecord(flagDir, 20, sector, "\x00", nil))
	end := b[systemArea+sector:]
	end[0] = 255
	copy(end[1:], "CD001")
	name := func(s string) []byte { return append([]byte{'N', 'M', byte(5 + len(s)), 1, 0}, s...) }
	px := append([]byte{'P', 'X', 36, 1}, make([]byte, 32)...)
	root := b[20*sector : 20*sector : 21*sector]
	root = append(root, rawRecord(flagDir, 20, sector, "\x00", append([]byte{'S', 'P', 7, 1, 0xbe, 0xef, 0}, px...))...)
	root = append(root, rawRecord(flagDir, 20, sector, "\x01", nil)...)
	root = append(root, rawRecord(flagMore, 22, 5, "BIG", name("big"))...)
	root = append(root, rawRecord(0, 23, 6, "BIG", name("big"))...)
	root = append(root, rawRecord(flagDir, 21, sector, "DIR", name("dir"))...)
	root = append(root, rawRecord(0, 0, 0, "L", append(name("link"), 'S', 'L', 10, 1, 0, 0, 3, 'd', 'i', 'r'))...)
	root = append(root, rawRecord(0, 0, 0, "M", append(name("moved"), 'C', 'L', 12, 1, 21, 0, 0, 0, 0, 0, 0, 21))...)
	root = append(root, rawRecord(flagDir, 21, sector, "R", append(name("hidden"), 'R', 'E', 4, 1))...)
	ce := append([]byte{'C', 'E', 28, 1}, make([]byte, 24)...)
	binary.LittleEndian.PutUint32(ce[4:], 22)
	binary.LittleEndian.PutUint32(ce[12:], 100)
	binary.LittleEndian.PutUint32(ce[20:], 10)
	_ = append(root, rawRecord(0, 23, 6, "C", append([]byte{'N', 'M', 8, 1, 1, 'l', 'o', 'n'}, ce...))...)
	copy(b[22*sector+100:], name("g.txt"))
	copy(b[21*sector:], append(append(rawRecord(flagDir, 21, sector, "\x00", nil), rawRecord(flagDir, 20, sector, "\x01", nil)...), rawRecord(0, 22, 5, "F", name("file"))...))
	copy(b[22*sector:], "hello")
	copy(b[23*sector:], " world")
	return b
}

func rawRecord(flags byte, block, size uint32, name string, use []byte) []byte {
	r := make([]byte, recordHead)
	binary.LittleEndian.PutUint32(r[2:], block)
	binary.LittleEndian.PutUint32(r[10:], size)
	copy(r[18:], []byte{126, 1, 2, 3, 4, 5, 0})
	r[25], r[32] = flags, byte(len(name))
	r = append(r, name...)
	if len(r)&1 == 1 {
		r = append(r, 0)
	}
	r = append(r, use...)
	if len(r)&1 == 1 {
		r = append(r, 0)
	}
	r[0] = byte(len(r))
	return r
}

func TestHandmade(t *testing.T) {
	b := handmade()
	img, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"big": "hello world", "dir/file": "hello", "link/file": "hello", "moved/file": "hello", "long.txt": " world", "link/../big": "hello world"} {
		e, err := img.Lookup(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		r, err := img.Content(e)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got, err := io.ReadAll(r); string(got) != want || err != nil || e.Size != int64(len(want)) {
			t.Errorf("%s is %q of %d bytes, %v, want %q", path, got, e.Size, err, want)
		}
		part := make([]byte, 3)
		if n, err := r.ReadAt(part, 2); n != 3 || err != nil || string(part) != want[2:5] {
			t.Errorf("%s: 3 bytes at 2 are %q, %v", path, part[:n], err)
		}
	}
	all, err := img.List(img.root)
	var names []string
	for _, e := range all {
		names = append(names, e.Name)
	}
	if len(names) != 5 || err != nil {
		t.Errorf("the root lists %q, %v", names, err)
	}
}

// FuzzImage: whatever an image holds, a walk over it ends, and reads nothing
// that is not in the file.
func FuzzImage(f *testing.F) {
	whole := handmade()
	f.Add(whole, "dir/file")
	f.Add(whole[:17*sector], "")
	again := bytes.Clone(whole)
	copy(again[21*sector:], again[20*sector:21*sector]) // a directory in itself
	f.Add(again, "dir/dir/moved/dir/link/link")
	f.Add(bytes.ReplaceAll(whole, []byte("big"), []byte("a/b")), "big") // a name that is a path, of a file in pieces
	joliet := bytes.Clone(whole)
	joliet[systemArea+sector] = 2
	copy(joliet[systemArea+sector:], joliet[systemArea:systemArea+sector])
	joliet[systemArea+sector] = 2
	copy(joliet[systemArea+sector+88:], "%/E")
	joliet[20*sector+34] = 'X'
	f.Add(joliet, "x")
	f.Fuzz(func(t *testing.T, b []byte, path string) {
		img, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		_, _ = img.Lookup(path)
		left := 200
		var walk func(e Entry, depth int)
		walk = func(e Entry, depth int) {
			all, _ := img.List(e)
			for _, e := range all {
				if left--; left < 0 || depth > 20 {
					return
				}
				if !usable(e.Name) {
					t.Fatalf("the name %q", e.Name)
				}
				if e.Dir {
					walk(e, depth+1)
					continue
				}
				if r, err := img.Content(e); err == nil {
					if n, err := io.Copy(io.Discard, r); err != nil || n != e.Size || n > int64(len(b))*1024 {
						t.Fatalf("%s: %d bytes of %d: %v", e.Name, n, e.Size, err)
					}
				}
			}
		}
		walk(img.root, 0)
	})
}
