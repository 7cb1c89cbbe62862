package ipxe

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/controller/boot"
	"muster/controller/boot/boottest"
	"muster/shared/fault"
	"muster/shared/wire"
)

var update = flag.Bool("update", false, "write the golden scripts")

func setup(t *testing.T) (*boottest.Registry, *http.ServeMux) {
	t.Helper()
	reg := &boottest.Registry{}
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "snponly.efi"), []byte("an efi program"), 0o644)
	os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o644)
	mux := http.NewServeMux()
	for _, r := range Routes(Config{Directory: reg, Journal: reg, Head: boot.Head{
		Addr: netip.MustParseAddr("10.0.0.1"), HTTPPort: 8080, HTTPSPort: 443, CA: strings.Repeat("ca", 32), Programs: boot.Dir(dir),
	}}) {
		if r.Permission == "" || r.Doc == "" || r.Raw == "" {
			t.Errorf("%s has no permission, doc or media type", r.Path)
		}
		mux.HandleFunc(r.Method+" "+r.Path, func(w http.ResponseWriter, q *http.Request) {
			if err := r.Handler(w, q); err != nil {
				http.Error(w, err.Error(), fault.Status(err))
			}
		})
	}
	return reg, mux
}

func machine() boot.Machine {
	return boot.Machine{UID: "u9", Name: "n9", IP: netip.MustParseAddr("10.0.0.9"), Config: boot.Config{
		Kernel: boot.File{Name: "vmlinuz-6.1", SHA256: strings.Repeat("0a", 32)},
		Initrds: []boot.File{
			{Name: "agent.cpio.zst", SHA256: strings.Repeat("0b", 32)},
			{Name: "my modules${x}.cpio", SHA256: strings.Repeat("0c", 32)},
		},
		Cmdline: "console=ttyS0  quiet", Style: "rwram",
	}}
}

func get(mux http.Handler, path, from string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	r.RemoteAddr = from + ":4000"
	r.Header.Set("User-Agent", "iPXE/1.0.0+git-20190125.36a4c85-5.1")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".ipxe")
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("%s: %v; -update writes it. Got:\n%s", file, err, got)
	}
}

func TestScripts(t *testing.T) {
	for _, tt := range []struct {
		name, path, from string
		change           func(*boot.Machine)
		opened           bool
		stamp            string // the only one
	}{
		{name: "load", path: wire.PathScript, stamp: "u9 firmware iPXE/1.0.0+git-20190125.36a4c85-5.1"},
		{name: "load", path: wire.PathScript, from: "::ffff:10.0.0.9", stamp: "u9 firmware iPXE/1.0.0+git-20190125.36a4c85-5.1"},
		{name: "load", path: wire.PathScript + "?at=initrd1&error=0x2e008081",
			stamp: "u9 firmware iPXE/1.0.0+git-20190125.36a4c85-5.1iPXE could not fetch initrd1: error 0x2e008081, see https://ipxe.org/2e008081"},
		{name: "load", path: wire.PathScript + "?at=%0aboot&error=%22x", stamp: "u9 firmware iPXE/1.0.0+git-20190125.36a4c85-5.1"},
		{name: "start", path: wire.PathGo, opened: true, stamp: "u9 kernel vmlinuz-6.1"},
		{name: "not-open", path: wire.PathGo},
		{name: "unknown", path: wire.PathScript, from: "10.0.0.77"},
		{name: "unknown", path: wire.PathGo, from: "10.0.0.77"},
		{name: "foreign", path: wire.PathGo, stamp: "u9 kernel vmlinuz-6.1", change: func(m *boot.Machine) {
			m.Config.Foreign, m.Config.Cmdline = true, "ip=dhcp inst.ks=http://10.0.0.1/boot/v1/kickstart ds=nocloud;s=http://10.0.0.1/"
		}},
		{name: "next", path: wire.PathScript, change: func(m *boot.Machine) { m.Config = boot.Config{Style: boot.StyleNext} },
			stamp: "u9 firmware iPXE/1.0.0+git-20190125.36a4c85-5.1"},
		{name: "disk", path: wire.PathScript, change: func(m *boot.Machine) {
			m.Config.San, _ = boot.ParseSan(boot.LocalDisk)
			m.Config.Kernel = boot.File{}
		}, stamp: "u9 firmware iPXE/1.0.0+git-20190125.36a4c85-5.1"},
		{name: "iso", path: wire.PathScript + "?at=disk&error=0x3e1162eb", change: func(m *boot.Machine) {
			m.Config.San, _ = boot.ParseSan("http://10.0.0.1:8080/a.iso")
		}, stamp: "u9 firmware iPXE/1.0.0+git-20190125.36a4c85-5.1iPXE could not boot the disk: error 0x3e1162eb, see https://ipxe.org/3e1162eb"},
		{name: "live", path: wire.PathScript, change: func(m *boot.Machine) {
			m.Config.Kernel, m.Config.Initrds = boot.File{Path: "/repo/1/tree/live/vmlinuz"}, []boot.File{{Path: "/repo/1/tree/live/initrd.img"}}
		}, stamp: "u9 firmware iPXE/1.0.0+git-20190125.36a4c85-5.1"},
		{name: "problem", path: wire.PathScript, change: func(m *boot.Machine) { m.Problem = "attribute _boot_config names \"Nope\", which is no boot config" },
			stamp: `u9 firmware attribute _boot_config names "Nope", which is no boot config`},
		{name: "problem", path: wire.PathGo, opened: true, change: func(m *boot.Machine) { m.Problem = "attribute _boot_config names \"Nope\", which is no boot config" },
			stamp: `u9 kernel attribute _boot_config names "Nope", which is no boot config`},
		{name: "hostile", path: wire.PathScript, change: func(m *boot.Machine) {
			m.Name, m.Problem = "n9\nshell", "a || shell ; #x && ${net0/mac} \\\r\nreboot --x é"
		}, stamp: "u9 firmware a || shell ; #x && ${net0/mac} \\\r\nreboot --x é"},
		{name: "no-kernel", path: wire.PathScript, change: func(m *boot.Machine) { m.Config.Kernel = boot.File{} },
			stamp: "u9 firmware the boot config's file \"\" has no content: upload kernel and initramfs (`muster bootconfig update`)"},
	} {
		t.Run(tt.name+" "+tt.path, func(t *testing.T) {
			reg, mux := setup(t)
			m := machine()
			if tt.change != nil {
				tt.change(&m)
			}
			reg.Put(m)
			if tt.opened {
				reg.OpenBoot(m.UID, m.IP)
			}
			if tt.from == "" {
				tt.from = "10.0.0.9"
			}
			if strings.Contains(tt.from, "::") {
				tt.from = "[" + tt.from + "]"
			}
			w := get(mux, tt.path, tt.from)
			if w.Code != 200 || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("status %d, headers %v", w.Code, w.Header())
			}
			golden(t, tt.name, w.Body.String())
			if s := strings.Join(reg.Stamps(), "|"); s != tt.stamp {
				t.Errorf("stamps %q, want %q", s, tt.stamp)
			}
		})
	}
}

func TestOneKeyPerBoot(t *testing.T) {
	reg, mux := setup(t)
	reg.Put(machine())
	other := machine()
	other.UID, other.IP = "u8", netip.MustParseAddr("10.0.0.8")
	reg.Put(other)
	key := func(from string) bool {
		return strings.Contains(get(mux, wire.PathGo, from).Body.String(), wire.CmdlineKey+"=")
	}
	reg.OpenBoot("u9", netip.MustParseAddr("10.0.0.9"))
	if strings.Contains(get(mux, wire.PathScript, "10.0.0.9").Body.String(), "key") {
		t.Error("the first script holds a key")
	}
	if key("10.0.0.8") {
		t.Error("another address got a key")
	}
	if !key("10.0.0.9") || key("10.0.0.9") {
		t.Error("not exactly one key for a boot")
	}
	reg.OpenBoot("u9", netip.MustParseAddr("10.0.0.9"))
	if !key("10.0.0.9") {
		t.Error("no key for the next boot")
	}
}

func TestCmdline(t *testing.T) {
	for cmdline, want := range map[string]string{
		"":                         "",
		"console=ttyS0 quiet -- x": "",
		`a="b c" d=$x e={f} ||g`:   "",
		"a\nshell":                 `'\n'`,
		"a\x00":                    `'\x00'`,
		"é":                        `'é'`,
		"mac=${net0/mac}":          "${",
		"a || shell":               `"||"`,
		"a && shell":               `"&&"`,
		"a ; shell":                `";"`,
		"a #b":                     `"#b"`,
		`a\`:                       "continued",
	} {
		err := checkCmdline(cmdline)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", cmdline, err, want)
		}
	}
	reg, mux := setup(t)
	m := machine()
	m.Config.Cmdline = strings.Repeat("x", 1900)
	reg.Put(m)
	if s := get(mux, wire.PathScript, "10.0.0.9").Body.String(); !strings.Contains(s, "shorten the boot config's cmdline") {
		t.Error(s)
	}
}

func TestProgram(t *testing.T) {
	_, mux := setup(t)
	if w := get(mux, boot.PathProgram+"snponly.efi", "10.0.0.9"); w.Code != 200 || w.Body.String() != "an efi program" {
		t.Errorf("GET: %d %q", w.Code, w.Body)
	}
	r := httptest.NewRequest("HEAD", boot.PathProgram+"snponly.efi", nil)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	if w.Code != 200 || w.Header().Get("Content-Length") != "14" {
		t.Errorf("HEAD: %d %v", w.Code, w.Header())
	}
	for name, text := range map[string]string{"ipxe.efi": "package ipxe", "secret": "only *.kpxe", "..%2fx.efi": "only *.kpxe"} {
		if w := get(mux, boot.PathProgram+name, "10.0.0.9"); w.Code != 404 || !strings.Contains(w.Body.String(), text) {
			t.Errorf("%s: %d %q", name, w.Code, w.Body)
		}
	}
}

// FuzzScripts puts any text where admins write: the scripts must keep their
// lines, and no command of the text's own may appear in them.
func FuzzScripts(f *testing.F) {
	f.Add("n9", "reason", "console=ttyS0", "vmlinuz")
	f.Add("a\nshell", "x || shell ${y}", "a ; shell", "${x}/../y")
	f.Fuzz(func(t *testing.T, name, reason, cmdline, file string) {
		head := boot.Head{Addr: netip.MustParseAddr("10.0.0.1"), HTTPPort: 80, HTTPSPort: 443}
		sum := strings.Repeat("0", 64)
		m := boot.Machine{Name: name, Config: boot.Config{Kernel: boot.File{Name: file, SHA256: sum}, Cmdline: cmdline}}
		scripts := map[string]string{load(head, m): load(head, boot.Machine{Config: m.Config}), wait(head, m, reason, ""): wait(head, boot.Machine{}, "", "")}
		if checkCmdline(cmdline) == nil {
			scripts[start(head, m, "k")] = start(head, boot.Machine{}, "k")
		}
		for got, plain := range scripts {
			g, p := strings.Split(got, "\n"), strings.Split(plain, "\n")
			if len(g) != len(p) {
				t.Fatalf("%d lines, not %d:\n%s", len(g), len(p), got)
			}
			for i := range g {
				if count(g[i]) != count(p[i]) || strings.HasSuffix(g[i], `\`) || strings.ContainsAny(g[i], "\r\x00") {
					t.Fatalf("line %q, without the text %q", g[i], p[i])
				}
			}
		}
	})
}

// count counts what means something to iPXE in a line.
func count(line string) int {
	n := strings.Count(line, "${")
	for _, w := range strings.Fields(line) {
		if w == "||" || w == "&&" || w == ";" || w[0] == '#' {
			n++
		}
	}
	return n
}
