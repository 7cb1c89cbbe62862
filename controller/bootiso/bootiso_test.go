package bootiso_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/bootiso"
	"muster/shared/fault"
	"muster/shared/object"
)

type site struct {
	*apitest.Head
	dir string
	opt bootiso.Options
}

func start(t *testing.T) *site {
	s := &site{dir: t.TempDir()}
	for name, size := range map[string]int{"kernel": 300_000, "modules": 100_001, "agent": 5000} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(strings.Repeat(name[:1], size)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.opt = bootiso.Options{GRUB: bootiso.DefaultGRUB, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
		URLs: func(net.Addr) (string, string) { return "http://10.0.0.1:8080", "https://10.0.0.1:8443" }, CA: strings.Repeat("ca", 32)}
	s.opt.Plan = func(_ context.Context, bc *object.Bootconfig, n *object.Node) (bootiso.Plan, error) {
		if bc.Name == "broken" {
			return bootiso.Plan{}, fault.New(fault.Conflict, "The boot configuration broken cannot boot: no kernel.")
		}
		line := bc.Cmdline
		if n != nil {
			line += " for=" + n.Name
		}
		return bootiso.Plan{Kernel: s.dir + "/kernel", Initrds: []string{s.dir + "/modules", s.dir + "/agent"}, Cmdline: line, Foreign: bc.Installs()}, nil
	}
	s.Head = apitest.Start(t, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		s.opt.Objects = h.Registry
		route := bootiso.New(s.opt).Routes()[0]
		route.Handler = func(w http.ResponseWriter, r *http.Request) error {
			return bootiso.New(s.opt).Routes()[0].Handler(w, r)
		}
		return [][]api.Route{{route}}
	}})
	return s
}

// tool runs one that the ISO is looked at with.
func tool(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// iso makes one and gives its path, with GRUB's configuration on it.
func (s *site) iso(t *testing.T, body any, query string) (path, config string) {
	t.Helper()
	a := s.Do("GET", "/bootconfigs/mkiso"+query, body)
	if a.Status != http.StatusOK || a.Header.Get("Content-Type") != "application/x-iso9660-image" {
		t.Fatalf("%v: %d %.300s", body, a.Status, a.Raw)
	}
	dir := t.TempDir()
	path = filepath.Join(dir, "out.iso")
	if err := os.WriteFile(path, a.Raw, 0o644); err != nil {
		t.Fatal(err)
	}
	tool(t, "xorriso", "-osirrox", "on", "-indev", path, "-extract", "/boot/grub/grub.cfg", dir+"/grub.cfg", "-extract", "/boot", dir+"/boot")
	raw, err := os.ReadFile(dir + "/grub.cfg")
	if err != nil {
		t.Fatal(err)
	}
	for name, on := range map[string]string{"kernel": "kernel", "modules": "initrd0", "agent": "initrd1"} {
		a, err1 := os.ReadFile(filepath.Join(s.dir, name))
		b, err2 := os.ReadFile(filepath.Join(dir, "boot", on))
		if err1 != nil || err2 != nil || string(a) != string(b) {
			t.Errorf("%s on the ISO is not %s: %v, %v", on, name, err1, err2)
		}
	}
	return path, string(raw)
}

func TestISO(t *testing.T) {
	for _, name := range []string{"xorriso", "mcopy", "grub-mkimage"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatal(name + " is not installed: scripts/deps test")
		}
	}
	s := start(t)
	image := s.Create("images", `{"name":"Other"}`)
	uid := s.Create("bootconfigs", apitest.Map{"name": "my boot", "cmdline": `console=ttyS0 dyndbg="file a.c +p" x=$y;z`})
	s.Create("bootconfigs", `{"name":"install","kickstart":"a.ks","cmdline":"inst.ks=http://10.0.0.1/x"}`)
	s.Create("nodes", `{"mac":"52:54:00:00:00:01"}`)

	path, config := s.iso(t, apitest.Map{"uid": "my boot"}, "")
	const head = "'muster.head=http://10.0.0.1:8080' "
	for _, want := range []string{"linux /boot/kernel " + head, "'muster.https=https://10.0.0.1:8443'", "'muster.key=ask'", "'muster.config=" + uid + "'",
		`'console=ttyS0' 'dyndbg=file a.c +p' 'x=$y;z'`, "initrd /boot/initrd0 /boot/initrd1\n"} {
		if !strings.Contains(config, want) {
			t.Errorf("GRUB is not told %s:\n%s", want, config)
		}
	}
	if strings.Contains(config, "muster.image") {
		t.Errorf("an image that nobody asked for:\n%s", config)
	}
	report := tool(t, "xorriso", "-indev", path, "-report_el_torito", "plain")
	for _, want := range []string{"BIOS", "UEFI", "/boot/grub/bios.img", "/efi.img"} {
		if !strings.Contains(report, want) {
			t.Errorf("the ISO's boot catalog has no %s:\n%s", want, report)
		}
	}
	if _, config = s.iso(t, nil, "?uid="+uid+"&image=Other&node=n0&url=http://head.example.org:81/"); !strings.Contains(config, "'muster.image="+image+"'") ||
		!strings.Contains(config, "'muster.head=http://head.example.org:81' ") || !strings.Contains(config, "https://head.example.org:8443'") || !strings.Contains(config, "'for=n0'") {
		t.Errorf("another image, node and URL:\n%s", config)
	}
	if _, config = s.iso(t, apitest.Map{"uid": "install"}, ""); !strings.Contains(config, "linux /boot/kernel 'inst.ks=http://10.0.0.1/x'\n") {
		t.Errorf("an installer:\n%s", config)
	}
	s.opt.URLs = func(local net.Addr) (string, string) { return "http://" + local.String(), "" }
	if _, config = s.iso(t, apitest.Map{"uid": uid}, ""); !strings.Contains(config, "'muster.head="+s.Server.URL+"'") || strings.Contains(config, "muster.key") {
		t.Errorf("a head that can give no keys:\n%s", config)
	}
	left, _ := filepath.Glob(s.opt.Dir + "/*")
	if len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

func TestRefused(t *testing.T) {
	s := start(t)
	s.Create("bootconfigs", `{"name":"b"}`)
	s.Create("bootconfigs", `{"name":"broken"}`)
	s.Create("bootconfigs", `{"name":"next","boot_style":"next"}`)
	s.Create("bootconfigs", `{"name":"install","kickstart":"a.ks"}`)
	s.Create("bootconfigs", `{"name":"odd","cmdline":"a='b'"}`)
	s.Create("bootconfigs", `{"name":"half","cmdline":"a=\"b"}`)
	s.Create("images", `{"name":"i"}`)
	for body, word := range map[string]string{
		``: "uid", `{}`: "uid", `{"uid":"nobody"}`: "nobody", `{"uid":"broken"}`: "no kernel", `{"uid":"next"}`: "next", `{"uid":"b","image":"none"}`: "none",
		`{"uid":"b","node":"n9"}`: "n9", `{"uid":"install","image":"i"}`: "installer", `{"uid":"odd"}`: `'\''`, `{"uid":"half"}`: `"`, `{"uid":"b","other":1}`: "other",
		`{"uid":"b","url":"ftp://x"}`: "ftp://x", `{"uid":"b","url":"http://x/y z"}`: "url", `{"uid":"b","url":"http://a' init=/bin/sh"}`: "url",
	} {
		if reason := s.Refused("GET", "/bootconfigs/mkiso", body); !strings.Contains(reason, word) {
			t.Errorf("%s: %s", body, reason)
		}
	}
	s.opt.GRUB = t.TempDir()
	t.Setenv("PATH", t.TempDir())
	a := s.Do("GET", "/bootconfigs/mkiso", `{"uid":"b"}`)
	for _, word := range []string{"apt-get install", "xorriso", "mtools", "grub-common", "grub-pc-bin", "grub-efi-amd64-bin"} {
		if a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Reason, word) {
			t.Errorf("without the tools: %d %s", a.Status, a.Raw)
		}
	}
}
