// Package ipxe answers what firmware asks over HTTP: the two boot scripts, and
// the iPXE binaries for UEFI HTTP boot.
//
// A machine is known by the source address of its connection. The first script
// is no secret and gives nothing away: any user of a node can ask for it. The
// second one has the one-time key, and Journal.Mint decides whether there is
// one to give. Files are fetched by content from wire.PathFile, which is not
// served here.
package ipxe

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"muster/controller/api"
	"muster/controller/boot"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/wire"
)

// Config is what the routes need. All fields are required.
type Config struct {
	Head      boot.Head
	Directory boot.Directory
	Journal   boot.Journal
}

// Routes gives the endpoints. Their clients are firmware: they are public, and
// answer with scripts also where another client would get an error.
func Routes(c Config) []api.Route {
	return []api.Route{
		{Method: "GET", Path: wire.PathScript, Permission: kind.Public, Handler: c.script, Raw: "text/plain",
			Doc:   "Give the iPXE script that loads kernel and initrds for the machine at the asking address.",
			Query: []api.Param{{Name: "at", Doc: "what could not be fetched or started, where it starts over"}, {Name: "error", Doc: "iPXE's number of that error"}}},
		{Method: "GET", Path: wire.PathGo, Permission: kind.Public, Handler: c.start, Raw: "text/plain",
			Doc: "Give the iPXE script that starts what was loaded, with a one-time enrolment key, once per boot."},
		{Method: "GET", Path: boot.PathProgram + "{file}", Permission: kind.Public, Handler: c.program, Raw: "application/efi",
			Doc: "Give an iPXE binary, for UEFI HTTP boot."},
	}
}

// asker finds the machine at the source address.
func (c Config) asker(r *http.Request) (netip.Addr, boot.Machine, bool) {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, boot.Machine{}, false
	}
	addr := ap.Addr().Unmap()
	m, ok := c.Directory.ByAddr(addr)
	return addr, m, ok
}

func (c Config) script(w http.ResponseWriter, r *http.Request) error {
	addr, m, ok := c.asker(r)
	if !ok {
		return send(w, unknown(addr.String()))
	}
	if reason := c.obstacle(m); reason != "" {
		c.Journal.Stamp(m.UID, wire.Step{Step: wire.StepFirmware, Error: reason})
		return send(w, wait(c.Head, m, reason, ""))
	}
	// A script that starts over says why: one stamp for all its attempts.
	c.Journal.Stamp(m.UID, wire.Step{Step: wire.StepFirmware, Detail: agent(r), Error: failure(r)})
	if m.Config.Style != boot.StyleNext && m.Config.San == nil {
		return send(w, load(c.Head, m))
	}
	if err := c.served(r, m); err != nil {
		return err
	}
	if m.Config.Style == boot.StyleNext {
		return send(w, next(m))
	}
	return send(w, san(c.Head, m))
}

func (c Config) start(w http.ResponseWriter, r *http.Request) error {
	addr, m, ok := c.asker(r)
	if !ok {
		return send(w, unknown(addr.String()))
	}
	if reason := c.obstacle(m); reason != "" {
		c.Journal.Stamp(m.UID, wire.Step{Step: wire.StepKernel, Error: reason})
		return send(w, wait(c.Head, m, reason, ""))
	}
	if m.Config.Foreign {
		c.Journal.Stamp(m.UID, wire.Step{Step: wire.StepKernel, Detail: m.Config.Kernel.Name})
		return send(w, start(c.Head, m, ""))
	}
	key, ok := c.Journal.Mint(m.UID, addr)
	if !ok || !plainKey.MatchString(key) {
		return send(w, wait(c.Head, m, "no boot is open for this address: the head has seen no DHCP request of its firmware since the last boot",
			"ifconf --configurator dhcp netX ||\n"))
	}
	if err := c.served(r, m); err != nil {
		return err
	}
	c.Journal.Stamp(m.UID, wire.Step{Step: wire.StepKernel, Detail: m.Config.Kernel.Name})
	return send(w, start(c.Head, m, key))
}

// served notes that a machine is told what it boots once.
func (c Config) served(r *http.Request, m boot.Machine) error {
	if m.Config.Once == "" {
		return nil
	}
	return c.Journal.Served(r.Context(), m.UID, m.Config.Once)
}

var (
	plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	plainSum = regexp.MustCompile(`^[0-9a-f]{64}$`)
	plainAt  = regexp.MustCompile(`^(vmlinuz|initrd[0-9]{1,3}|go|boot|disk)$`)
	plainErr = regexp.MustCompile(`^(0x)?[0-9a-fA-F]{1,8}$`)
	plainUA  = regexp.MustCompile(`^iPXE/[A-Za-z0-9.+() -]{1,60}$`)
)

// obstacle is why the machine gets no kernel, "" when nothing is in the way.
func (c Config) obstacle(m boot.Machine) string {
	if m.Problem != "" {
		return m.Problem
	}
	if m.Config.Style == boot.StyleNext || m.Config.San != nil {
		return ""
	}
	for _, f := range append([]boot.File{m.Config.Kernel}, m.Config.Initrds...) {
		if f.Path == "" && !plainSum.MatchString(f.SHA256) {
			return fmt.Sprintf("the boot config's file %q has no content: upload kernel and initramfs (`muster bootconfig update`)", f.Name)
		}
	}
	if err := checkCmdline(m.Config.Cmdline); err != nil {
		return err.Error()
	}
	const mac, key = 17, 64 // bytes that are not known yet
	if n := len(kernelName) + 1 + len(arguments(c.Head, m, "")) + mac + key; n >= maxCmdline {
		return fmt.Sprintf("the kernel's command line would have %d bytes, the kernel takes %d: shorten the boot config's cmdline", n, maxCmdline-1)
	}
	return ""
}

// failure is what a script that starts over reports: which part failed, and
// iPXE's error number, which its site explains.
func failure(r *http.Request) string {
	at, e := r.URL.Query().Get("at"), r.URL.Query().Get("error")
	if !plainAt.MatchString(at) || !plainErr.MatchString(e) {
		return ""
	}
	what := "iPXE could not fetch " + at
	switch at {
	case "boot":
		what = "iPXE could not start the kernel"
	case "disk":
		what = "iPXE could not boot the disk"
	}
	return fmt.Sprintf("%s: error %s, see https://ipxe.org/%s", what, e, strings.TrimPrefix(e, "0x"))
}

// agent is the firmware's own name for itself, when it looks like one.
func agent(r *http.Request) string {
	if ua := r.UserAgent(); plainUA.MatchString(ua) {
		return ua
	}
	return ""
}

func send(w http.ResponseWriter, script string) error {
	w.Header().Set("Content-Type", "text/plain; charset=us-ascii")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", fmt.Sprint(len(script)))
	_, err := w.Write([]byte(script))
	return err
}

// program serves an iPXE binary. UEFI asks with HEAD first, for the size.
func (c Config) program(w http.ResponseWriter, r *http.Request) error {
	f, _, err := c.Head.Programs.Open(r.PathValue("file"))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, boot.ErrNotServed):
		return fault.New(fault.NotFound, "%v.", err)
	case err != nil:
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/efi")
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}
