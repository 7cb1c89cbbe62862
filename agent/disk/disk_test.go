package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func image(t *testing.T, size int64) (*os.File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f, path
}

// TestTable lets the distribution's fdisk judge the partition table.
func TestTable(t *testing.T) {
	f, path := image(t, 200<<20+512*7)
	if err := writeTable(f, 200<<20+512*7, 512, "muster-root"); err != nil {
		t.Fatal(err)
	}
	c, err := inspect(f, 200<<20+512*7)
	if err != nil || c.Kind != "a GPT partition table" {
		t.Errorf("what was written is %+v, %v", c, err)
	}
	if _, err := exec.LookPath("sfdisk"); err != nil {
		t.Skip("no sfdisk")
	}
	out, err := exec.Command("sfdisk", "--verify", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No errors detected") {
		t.Errorf("sfdisk says %v: %s", err, out)
	}
	out, _ = exec.Command("sfdisk", "--dump", path).CombinedOutput()
	if !strings.Contains(string(out), `start=        2048, size=      405504`) || !strings.Contains(string(out), `name="muster-root"`) {
		t.Errorf("the table is\n%s", out)
	}
	if writeTable(f, 1<<20, 512, "x") == nil || writeTable(f, 200<<20+7, 512, "x") == nil {
		t.Error("a disk too small or odd was partitioned")
	}
}

func TestContent(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(t *testing.T, f *os.File, path string)
		want Content
	}{
		{"blank", func(*testing.T, *os.File, string) {}, Content{}},
		{"ext4", mkfs("mke2fs", "-q", "-t", "ext4", "-F", "-L", "scratch", "-U", "11111111-2222-3333-4444-555555555555"), Content{"ext4", "scratch", "11111111-2222-3333-4444-555555555555"}},
		{"swap", mkfs("mkswap"), Content{Kind: "swap"}},
		{"the end", put(64<<20-5, "data"), Content{Kind: Unknown}},
		{"the beginning", put(70000, "data"), Content{Kind: Unknown}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, path := image(t, 64<<20)
			tt.make(t, f, path)
			if c, err := inspect(f, 64<<20); err != nil || c != tt.want {
				t.Errorf("found %+v, %v", c, err)
			}
		})
	}
}

func put(at int64, what string) func(*testing.T, *os.File, string) {
	return func(t *testing.T, f *os.File, _ string) {
		if _, err := f.WriteAt([]byte(what), at); err != nil {
			t.Fatal(err)
		}
	}
}

func mkfs(command string, args ...string) func(*testing.T, *os.File, string) {
	return func(t *testing.T, _ *os.File, path string) {
		cmd := exec.Command(command, append(args, path)...)
		cmd.Env = append(os.Environ(), "PATH=/sbin:/usr/sbin:/bin:/usr/bin")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("%s: %v %s", command, err, out)
		}
	}
}

func TestFindRefuses(t *testing.T) {
	for name, part := range map[string]string{
		"sda": "path such as", "/etc/passwd": "path such as", "/dev/../etc/passwd": "path such as", "/dev/nosuchdisk": "no disk",
		"LABEL=": "names no disk", "PARTUUID=x": "not by PARTUUID", "/dev/disk/by-id/x": "not by ID", "LABEL=nobody-has-this": "no disk",
	} {
		if d, err := Find(name); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s gives %v, %v", name, d, err)
		}
	}
}

// FuzzContent: nothing on a disk makes looking at it fail.
func FuzzContent(f *testing.F) {
	f.Add([]byte("XFSB"))
	f.Add(bytes.Repeat([]byte{0x53, 0xef}, 1024))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := inspect(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Error(err)
		}
	})
}
