package boot

import (
	"strings"
	"testing"
)

func TestParseSan(t *testing.T) {
	for in, want := range map[string]string{
		"":               "--no-describe --drive 0x80 first",
		"local-disk":     "--no-describe --drive 0x80 first",
		"/dev/sda2":      "--no-describe --drive 0x80 first",
		"/dev/vdb":       "--no-describe --drive 0x81",
		"/dev/nvme1n1p3": "--no-describe --drive 0x81",
		"--drive 0x81":   "--no-describe --drive 0x81",
		"http://h/a.iso": "http://h/a.iso",
		"iscsi:10.0.0.1:::1:iqn.2010-04.org.example:x":        "iscsi:10.0.0.1:::1:iqn.2010-04.org.example:x",
		`--filename \EFI\debian\grubx64.efi iscsi:h::::iqn.x`: `--filename \EFI\debian\grubx64.efi iscsi:h::::iqn.x`,
	} {
		s, err := ParseSan(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		got := strings.Join(s.Words, " ")
		if s.First {
			got += " first"
		}
		if got != want {
			t.Errorf("%q gives %q", in, got)
		}
	}
	for _, in := range []string{
		"sda", "/dev/tape", "/dev/sd1", "--drive", "--drive x", "--drive --keep", "--shell", "http://h/${mac}", "http://h/a || shell",
		"http://u:p@h/a.iso", "file:/etc/passwd", "http://h/é", "local-disk /dev/sda", "a;b", "--label # x", `http://h/a\`,
	} {
		if s, err := ParseSan(in); err == nil {
			t.Errorf("%q was taken: %v", in, s.Words)
		}
	}
}

func FuzzParseSan(f *testing.F) {
	f.Add("--drive 0x80 http://h/a")
	f.Add("/dev/nvme0n1p1")
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ParseSan(in)
		if err != nil {
			return
		}
		line := strings.Join(s.Words, " ")
		if strings.ContainsAny(line, "\n\r\x00") || strings.Contains(line, "${") || strings.HasSuffix(line, `\`) {
			t.Errorf("%q gives %q", in, line)
		}
		for _, w := range s.Words {
			if w == "||" || w == "&&" || w == ";" || w[0] == '#' {
				t.Errorf("%q gives %q", in, line)
			}
		}
	})
}
