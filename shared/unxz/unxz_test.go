package unxz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

// pack makes an .xz file; dict is the dictionary size that it declares.
func pack(t testing.TB, data []byte, dict int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.WriterConfig{DictCap: dict, BlockSize: 4096}.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDecode(t *testing.T) {
	data := bytes.Repeat([]byte("kernel modules "), 4000)
	got, err := Decode(pack(t, data, 1<<16), 1<<20, 1<<20)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("round trip: %d bytes, %v", len(got), err)
	}
	if _, err := Decode(pack(t, data, 1<<16), 1000, 1<<20); !errors.Is(err, ErrTooLarge) {
		t.Errorf("output beyond the bound: %v", err)
	}
	if _, err := Decode(pack(t, data, 1<<20), 1<<20, 1<<16); err == nil || !strings.Contains(err.Error(), "dictionary") {
		t.Errorf("dictionary beyond the bound: %v", err)
	}
}

// A later block may ask for more than the first one did.
func TestDictionaryOfLaterBlock(t *testing.T) {
	b := pack(t, bytes.Repeat([]byte{1}, 9000), 1<<16)
	last := -1
	for i := 16; i+12 <= len(b); i += 4 {
		if bytes.Equal(b[i:i+4], []byte{2, 0, 0x21, 1}) {
			last = i
		}
	}
	if last < 0 {
		t.Fatal("the writer makes headers of another form, so this tests nothing")
	}
	b[last+4] = 40 // 4 GiB - 1
	binary.LittleEndian.PutUint32(b[last+8:], crc32.ChecksumIEEE(b[last:last+8]))
	if _, err := Decode(b, 1<<20, 1<<20); err == nil || !strings.Contains(err.Error(), "dictionary") {
		t.Errorf("a 4 GiB dictionary in a later block was not refused: %v", err)
	}
}

func TestOtherFilter(t *testing.T) {
	b := pack(t, []byte("data"), 1<<16)
	header := []byte{2, 1, 4, 0, 0x21, 1, 12, 0} // x86 BCJ, then LZMA2
	header = binary.LittleEndian.AppendUint32(header, crc32.ChecksumIEEE(header))
	b = append(append(append([]byte{}, b[:12]...), header...), b[24:]...)
	if _, err := Decode(b, 100, 1<<20); !errors.Is(err, ErrFilter) {
		t.Errorf("want ErrFilter, got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(pack(f, []byte("hello, module"), 1<<16))
	f.Add([]byte("\xfd7zXZ\x00\x00\x04"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, err := Decode(b, 1<<16, 1<<20); err == nil && len(out) > 1<<16 {
			t.Fatalf("%d bytes came out", len(out))
		}
	})
}
