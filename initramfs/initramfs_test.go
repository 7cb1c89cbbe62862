package initramfs

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
	"github.com/ulikunitz/xz"

	"muster/initramfs/modindex"
)

const release = "6.1.0-test"

// ko makes a kernel module as far as its .modinfo goes: an ELF file with that
// section and the section of names.
func ko(order binary.ByteOrder, wide bool, lines ...string) []byte {
	info := strings.Join(lines, "\x00") + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	header, entry, word := 64, 64, 8
	if !wide {
		header, entry, word = 52, 40, 4
	}
	b := make([]byte, header)
	copy(b, "\x7fELF\x02\x01\x01")
	order.PutUint16(b[16:], 1) // ET_REL
	order.PutUint32(b[20:], 1) // EV_CURRENT
	if !wide {
		b[4] = 1
	}
	if order == binary.BigEndian {
		b[5] = 2
	}
	put := func(at []byte, v int) {
		if word == 8 {
			order.PutUint64(at, uint64(v))
		} else {
			order.PutUint32(at, uint32(v))
		}
	}
	b = append(b, info+names...)
	put(b[24+2*word:], len(b)) // e_shoff
	for i, v := range []int{entry, 3, 2} {
		order.PutUint16(b[header-6+2*i:], uint16(v))
	}
	section := func(name, offset, size int) {
		h := make([]byte, entry)
		order.PutUint32(h, uint32(name))
		put(h[8+2*word:], offset)
		put(h[8+3*word:], size)
		b = append(b, h...)
	}
	section(0, 0, 0)
	section(1, header, len(info))
	section(10, header+len(info), len(names))
	return b
}

func koFor(depends string, lines ...string) []byte {
	return ko(binary.LittleEndian, true, append([]string{"license=GPL", "depends=" + depends, "vermagic=" + release + " SMP mod_unload"}, lines...)...)
}

func compressed(t testing.TB, ext string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch ext {
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	case ".gz":
		w = gzip.NewWriter(&b)
	default:
		return data
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// modulesDir makes a lib/modules directory of these files, compressed by
// their endings.
func modulesDir(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, compressed(t, compression(name), data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// distribution is a kernel with one of each case.
func distribution() map[string][]byte {
	return map[string][]byte{
		"kernel/fs/squashfs/squashfs.ko.xz":            koFor("lz4-decompress"),
		"kernel/lib/lz4/lz4-decompress.ko.zst":         koFor(""),
		"kernel/fs/overlayfs/overlay.ko.gz":            koFor("", "alias=fs-overlay"),
		"kernel/drivers/net/virtio_net.ko":             koFor("net_failover", "alias=virtio:d00000001v*"),
		"kernel/drivers/net/net_failover.ko.xz":        koFor("failover"),
		"kernel/net/core/failover.ko.xz":               koFor(""),
		"kernel/drivers/net/ethernet/realtek/r8169.ko": koFor("", "softdep=pre: realtek", "alias=pci:v000010ECd00008168sv*sd*bc*sc*i*", "firmware=rtl_nic/a.fw", "firmware=rtl_nic/none.fw", "firmware=../../secret"),
		"kernel/drivers/net/phy/realtek.ko":            koFor(""),
		"kernel/fs/ext4/ext4.ko":                       koFor("jbd2", "softdep=pre: crc32c", "alias=fs-ext4"),
		"kernel/fs/jbd2/jbd2.ko":                       koFor("", "softdep=pre: crc32c"),
		"kernel/crypto/crc32c_generic.ko":              koFor("", "alias=crypto-crc32c", "alias=crc32c"),
		"kernel/drivers/nvme/host/nvme.ko":             koFor("nvme-core"),
		"kernel/fs/nls/nls_iso8859-1.ko":               koFor(""),
		"kernel/sound/unwanted.ko":                     koFor(""),
		"kernel/drivers/net/tg3.ko":                    []byte("not an ELF file"),
		"kernel/drivers/net/igb.ko":                    ko(binary.LittleEndian, true, "vermagic=5.10.0 SMP"),
		"updates/e1000e.ko":                            koFor("", "description=newer"),
		"kernel/drivers/net/e1000e.ko":                 koFor("", "description=older"),
		"modules.builtin":                              []byte("kernel/drivers/block/loop.ko\nkernel/drivers/virtio/virtio_pci.ko\n"),
	}
}

type unpacked struct {
	cpio.Info
	data []byte
}

// unpack reads an archive as the kernel does: one zstd frame with a window
// that it accepts, then nothing but zeros up to a multiple of four.
func unpack(t testing.TB, b []byte) map[string]unpacked {
	t.Helper()
	if len(b)%4 != 0 {
		t.Errorf("the archive has %d bytes, not a multiple of four", len(b))
	}
	b = bytes.TrimRight(b, "\x00")
	var h zstd.Header
	if err := h.Decode(b); err != nil || h.WindowSize > window {
		t.Errorf("window %d, %v", h.WindowSize, err)
	}
	d, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	raw, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]unpacked{}
	r := cpio.Newc.Reader(bytes.NewReader(raw))
	err = cpio.ForEachRecord(r, func(rec cpio.Record) error {
		data, err := io.ReadAll(io.NewSectionReader(rec.ReaderAt, 0, int64(rec.FileSize)))
		if _, twice := files[rec.Name]; twice {
			t.Errorf("%s is in the archive twice", rec.Name)
		}
		if _, ok := files[filepath.Dir(rec.Name)]; !ok && filepath.Dir(rec.Name) != "." {
			t.Errorf("%s comes before its directory", rec.Name)
		}
		files[rec.Name] = unpacked{rec.Info, data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// checkOrder loads every module in the order given, and fails where one comes
// before another that it names in its depends.
func checkOrder(t *testing.T, ix *modindex.Index, files map[string]unpacked) {
	t.Helper()
	for _, m := range ix.Modules {
		steps, unknown := ix.Order(m.Name)
		if len(unknown) > 0 {
			t.Errorf("%s: unknown %v", m.Name, unknown)
		}
		loaded := map[string]bool{}
		for _, s := range steps {
			f, ok := files[modindex.Dir(ix.Release)+"/"+s.Path]
			if !ok {
				t.Fatalf("%s is listed and not in the archive", s.Path)
			}
			info, err := parseModinfo(f.data)
			if err != nil {
				t.Fatalf("%s: %v", s.Path, err)
			}
			for _, dep := range info.depends {
				if dep = modindex.CanonicalName(dep); !loaded[dep] {
					t.Errorf("%s: %s comes before %s", m.Name, s.Name, dep)
				}
			}
			loaded[s.Name] = true
		}
	}
}

func TestModules(t *testing.T) {
	dir := modulesDir(t, distribution())
	firmware := modulesDir(t, map[string][]byte{"rtl_nic/a.fw.xz": []byte("firmware")})
	var b, again bytes.Buffer
	report, err := Modules(&b, dir, Options{Firmware: firmware, Extra: []string{"unwanted"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Modules(&again, dir, Options{Firmware: firmware, Extra: []string{"unwanted"}}); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("the same input gave other bytes: %v", err)
	}
	want := "crc32c_generic e1000e ext4 failover jbd2 lz4_decompress net_failover nls_iso8859_1 overlay r8169 realtek squashfs unwanted virtio_net"
	if got := strings.Join(report.Included, " "); got != want {
		t.Errorf("included %s\nwant     %s", got, want)
	}
	if got := strings.Join(report.BuiltIn, " "); got != "loop virtio_pci" {
		t.Errorf("built in %s", got)
	}
	missing := strings.Join(report.Missing, "\n")
	for _, m := range []string{"nvme (it needs nvme_core", "tg3 (kernel/drivers/net/tg3.ko: not a kernel module", "igb (kernel/drivers/net/igb.ko is for kernel 5.10.0", "xfs\n"} {
		if !strings.Contains(missing, m) {
			t.Errorf("missing lacks %q:\n%s", m, missing)
		}
	}
	files := unpack(t, b.Bytes())
	ix, err := modindex.Parse(bytes.NewReader(files[modindex.Path(release)].data))
	if err != nil {
		t.Fatal(err)
	}
	checkOrder(t, ix, files)
	if got := strings.Join(ix.Boot, " "); got != "squashfs overlay" {
		t.Errorf("at boot %s", got)
	}
	if got := ix.Match("pci:v000010ECd00008168sv00001043sd00008677bc02sc00i00"); !slices.Equal(got, []string{"r8169"}) {
		t.Errorf("the card matches %v", got)
	}
	if steps, _ := ix.Order("r8169"); len(steps) != 2 || steps[0].Name != "realtek" || !steps[0].Optional {
		t.Errorf("r8169 is loaded by %+v", steps)
	}
	if steps, _ := ix.Order("ext4"); steps[0].Name != "crc32c_generic" || !steps[0].Optional {
		t.Errorf("ext4 is loaded by %+v", steps)
	}
	if got := files["lib/firmware/rtl_nic/a.fw"]; string(got.data) != "firmware" || !slices.Equal(report.Firmware, []string{"rtl_nic/a.fw"}) {
		t.Errorf("firmware %v", report.Firmware)
	}
	if got := files[modindex.Dir(release)+"/updates/e1000e.ko"]; !bytes.Contains(got.data, []byte("newer")) {
		t.Error("the module in updates did not win")
	}
}

func TestModulesRefused(t *testing.T) {
	without := func(names ...string) string {
		files := distribution()
		for _, name := range names {
			delete(files, name)
		}
		return modulesDir(t, files)
	}
	for name, c := range map[string]struct {
		dir  string
		opt  Options
		want string
	}{
		"empty":      {t.TempDir(), Options{}, "no kernel modules"},
		"absent":     {filepath.Join(t.TempDir(), "none"), Options{}, "no such file"},
		"squashfs":   {without("kernel/fs/squashfs/squashfs.ko.xz"), Options{}, "module squashfs is not in /"},
		"dependency": {without("kernel/lib/lz4/lz4-decompress.ko.zst"), Options{}, "squashfs in /"},
		"loop":       {without("modules.builtin"), Options{}, "module loop is not in /"},
		"cards":      {without("kernel/drivers/net/virtio_net.ko", "kernel/drivers/net/ethernet/realtek/r8169.ko", "updates/e1000e.ko", "kernel/drivers/net/e1000e.ko"), Options{}, "no driver for any network card"},
		"extra":      {without(), Options{Extra: []string{"no-such"}}, "module no_such"},
	} {
		_, err := Modules(io.Discard, c.dir, c.opt)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if _, err := Modules(io.Discard, without("modules.builtin"), Options{BuiltIn: []string{"loop"}}); err != nil {
		t.Errorf("loop said to be built in: %v", err)
	}
}

func TestCircle(t *testing.T) {
	files := distribution()
	files["kernel/fs/jbd2/jbd2.ko"] = koFor("ext4")
	report, err := Modules(io.Discard, modulesDir(t, files), Options{})
	if err != nil || !strings.Contains(strings.Join(report.Missing, "\n"), "ext4 (it needs itself") {
		t.Errorf("%v, missing %v", err, report.Missing)
	}
}

func TestAgent(t *testing.T) {
	exe := executable(t, elf.PT_LOAD)
	var b, again bytes.Buffer
	if err := Agent(&b, exe, []string{"sh", "ls"}); err != nil {
		t.Fatal(err)
	}
	if err := Agent(&again, exe, []string{"ls", "sh", "ls"}); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("the same input gave other bytes: %v", err)
	}
	files := unpack(t, b.Bytes())
	want, _ := os.ReadFile(exe)
	if f := files["init"]; f.Mode != cpio.S_IFREG|0o755 || !bytes.Equal(f.data, want) {
		t.Errorf("/init has mode %o and %d bytes", f.Mode, len(f.data))
	}
	for _, name := range []string{"bin/muster-agent", "bin/sh", "bin/ls"} {
		if f := files[name]; f.Mode&cpio.S_IFMT != cpio.S_IFLNK || string(f.data) != "/init" {
			t.Errorf("%s has mode %o and leads to %q", name, f.Mode, f.data)
		}
	}
	if f := files["dev/console"]; f.Mode != cpio.S_IFCHR|0o600 || f.Rmajor != 5 || f.Rminor != 1 {
		t.Errorf("dev/console: %v", f.Info)
	}
	if f := files["tmp"]; f.Mode != cpio.S_IFDIR|0o1777 {
		t.Errorf("tmp has mode %o", f.Mode)
	}
	for _, applet := range []string{"", "..", "a/b"} {
		if err := Agent(io.Discard, exe, []string{applet}); err == nil {
			t.Errorf("applet %q was accepted", applet)
		}
	}
	script := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Agent(io.Discard, script, nil); err == nil || !strings.Contains(err.Error(), "not a Linux executable") {
		t.Errorf("a script: %v", err)
	}
	if err := Agent(io.Discard, executable(t, elf.PT_INTERP), nil); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("a dynamic executable: %v", err)
	}
}

// executable makes an ELF file with one program header of this type.
func executable(t *testing.T, kind elf.ProgType) string {
	t.Helper()
	le := binary.LittleEndian
	b := make([]byte, 64+56+4000)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], uint16(elf.ET_EXEC))
	le.PutUint32(b[20:], uint32(elf.EV_CURRENT))
	le.PutUint64(b[32:], 64) // e_phoff
	le.PutUint16(b[54:], 56) // e_phentsize
	le.PutUint16(b[56:], 1)  // e_phnum
	le.PutUint32(b[64:], uint32(kind))
	p := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(p, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestModinfo(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, wide := range []bool{false, true} {
			b := ko(order, wide, "depends=a,b-c", "softdep=pre: d e post: f", "alias=x", "vermagic=6.1 SMP")
			info, err := parseModinfo(b)
			if err != nil || strings.Join(info.depends, " ") != "a b-c" || strings.Join(info.softdeps, " ") != "d e" || info.release != "6.1" {
				t.Errorf("%v wide %v: %+v, %v", order, wide, info, err)
			}
			for n := range b {
				if _, err := parseModinfo(b[:n]); err == nil {
					t.Errorf("%v wide %v: cut to %d bytes it was accepted", order, wide, n)
				}
			}
		}
	}
}

func FuzzModinfo(f *testing.F) {
	for _, wide := range []bool{false, true} {
		f.Add(ko(binary.LittleEndian, wide, "depends=a,b", "vermagic=6.1 SMP"))
		f.Add(ko(binary.BigEndian, wide, "softdep=pre: a", "vermagic=6.1 SMP"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := parseModinfo(b)
		if err == nil && info.release == "" {
			t.Fatal("accepted without a release")
		}
	})
}
