// Package bootiso makes ISO files that boot a machine whose network card
// cannot: kernel, initramfs and agent are on the ISO, everything after that
// comes from the head. One file boots BIOS and UEFI, from CD and from USB sticks.
//
// GRUB's images and the ISO are made by the distribution's tools; the ISO goes
// to the client as it is made and is never whole on this machine. The package
// must not decide what a boot configuration means.
package bootiso

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// Objects is what the package needs of the registry.
type Objects interface {
	Find(kindName, id string) (kind.Object, error)
}

// Plan is what to put on an ISO: files by their path on this machine, and the
// kernel's command line without what leads to the head.
type Plan struct {
	Kernel  string
	Initrds []string
	Cmdline string
	Foreign bool // an installer, which knows no head
}

// Options are what the package has to be told.
type Options struct {
	Objects Objects
	// Plan gives what a boot configuration boots, or why it cannot; n is nil
	// where the ISO is for any node.
	Plan func(ctx context.Context, bc *object.Bootconfig, n *object.Node) (Plan, error)
	// URLs gives the head's, as machines reach it; local is the address at which
	// the client did. Without https machines are known by their address alone.
	URLs func(local net.Addr) (http, https string)
	CA   string // fingerprint of the head's authority
	GRUB string // directory of GRUB's modules, /usr/lib/grub
	Dir  string // for temporary files of a few MB
	Log  *slog.Logger
}

// DefaultGRUB is where Debian, Ubuntu and Fedora have GRUB's modules.
const DefaultGRUB = "/usr/lib/grub"

// Maker serves the endpoint.
type Maker struct {
	opt   Options
	slots chan struct{}
}

const mediaType = "application/x-iso9660-image"

// maxAtOnce bounds how many ISOs are being made.
const maxAtOnce = 2

// New makes a Maker.
func New(opt Options) *Maker { return &Maker{opt, make(chan struct{}, maxAtOnce)} }

// Routes are the endpoints.
func (m *Maker) Routes() []api.Route {
	return []api.Route{{Method: "GET", Path: api.Root + "/bootconfigs/mkiso", Permission: "BootconfigsRead", Handler: m.mkiso,
		Doc:  "An ISO that boots the boot configuration uid, with another image, for one node or by way of another URL of the head where these are given.",
		Body: wanted{}, Raw: mediaType, Query: []api.Param{
			{Name: "uid", Doc: "the boot configuration; like the other keys instead of a body"}, {Name: "image", Doc: "an image to boot instead"},
			{Name: "node", Doc: "the node whose values fill in the command line"}, {Name: "url", Doc: "of the head, as the machine reaches it"},
		}}}
}

// wanted is the request: a JSON body, or a query for clients that cannot send
// one with GET.
type wanted struct {
	UID   string `json:"uid"`
	Image string `json:"image,omitempty"`
	Node  string `json:"node,omitempty"` // whose values fill in the command line
	URL   string `json:"url,omitempty"`  // of the head, as the machine reaches it
}

func (m *Maker) mkiso(w http.ResponseWriter, r *http.Request) error {
	want, err := parse(w, r)
	if err != nil {
		return err
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	p, name, err := m.plan(r.Context(), want, local)
	if err != nil {
		return err
	}
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	default:
		return fault.New(fault.Unavailable, "This head is making %d ISOs already; try again when one is done.", maxAtOnce)
	}
	dir, err := os.MkdirTemp(m.opt.Dir, "iso-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &build{dir: dir, grub: m.opt.GRUB, plan: p}
	if err := b.prepare(r.Context()); err != nil {
		return err
	}
	m.opt.Log.Info("making an ISO", "bootconfig", name, "admin", api.By(r).Name)
	return m.send(r.Context(), w, b, name)
}

// send streams the ISO. Nothing is sent before xorriso has begun: what it finds
// wrong it finds first.
func (m *Maker) send(ctx context.Context, w http.ResponseWriter, b *build, name string) error {
	out, wait, err := b.start(ctx)
	if err != nil {
		return err
	}
	first := bufio.NewReaderSize(out, 256<<10)
	if _, err := first.Peek(1); err != nil {
		if err = wait(); err == nil {
			err = fault.New(fault.Internal, "xorriso made no ISO.")
		}
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name + ".iso"}))
	_, err = io.Copy(w, first)
	if failed := wait(); err == nil {
		err = failed
	}
	return err
}

func parse(w http.ResponseWriter, r *http.Request) (wanted, error) {
	q := r.URL.Query()
	want := wanted{q.Get("uid"), q.Get("image"), q.Get("node"), q.Get("url")}
	raw, err := api.Body(w, r)
	if err == nil && raw != nil {
		err = api.Strict(raw, &want)
	}
	if err == nil && want.UID == "" {
		err = fault.Invalidf("uid: which boot configuration? Send {\"uid\": \"NAME\"}.")
	}
	return want, err
}

// plan decides what is on the ISO.
func (m *Maker) plan(ctx context.Context, want wanted, local net.Addr) (Plan, string, error) {
	o, err := m.opt.Objects.Find(object.KindBootconfig, want.UID)
	if err != nil {
		return Plan{}, "", err
	}
	bc := *o.(*object.Bootconfig)
	var node *object.Node
	if want.Node != "" {
		if o, err = m.opt.Objects.Find(object.KindNode, want.Node); err != nil {
			return Plan{}, "", err
		}
		node = o.(*object.Node)
	}
	if want.Image != "" {
		if o, err = m.opt.Objects.Find(object.KindImage, want.Image); err != nil {
			return Plan{}, "", err
		}
		if bc.Installs() {
			return Plan{}, "", fault.Invalidf("image: the boot configuration %s starts an installer, which boots no image.", bc.Name)
		}
		bc.Image = o.Base().UID
	}
	if !bc.BootsImage() && !bc.Installs() {
		return Plan{}, "", fault.New(fault.Conflict, "The boot configuration %s has the style %s: there is nothing to put on an ISO.", bc.Name, bc.Style())
	}
	p, err := m.opt.Plan(ctx, &bc, node)
	if err != nil {
		return Plan{}, "", err
	}
	if !p.Foreign {
		args, err := m.arguments(want, &bc, local)
		if err != nil {
			return Plan{}, "", err
		}
		p.Cmdline = strings.Join(append(args, p.Cmdline), " ")
	}
	return p, bc.Name, nil
}

// arguments lead the agent to the head. There is no key among them: the agent
// asks for one when it has an address.
func (m *Maker) arguments(want wanted, bc *object.Bootconfig, local net.Addr) ([]string, error) {
	plain, secure := m.opt.URLs(local)
	if want.URL != "" {
		u, err := url.Parse(want.URL)
		if err != nil || u.Host == "" || u.Scheme != "http" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return nil, fault.Invalidf("url: %q is no URL of a head such as http://10.0.0.1:8080.", want.URL)
		}
		plain = "http://" + u.Host
		if s, err := url.Parse(secure); err == nil && s.Host != "" {
			secure = "https://" + net.JoinHostPort(u.Hostname(), cmp.Or(s.Port(), "443"))
		}
	}
	args := []string{wire.CmdlineHead + "=" + plain, wire.CmdlineConfig + "=" + bc.UID}
	if secure != "" {
		args = append(args, wire.CmdlineHTTPS+"="+secure, wire.CmdlineCA+"="+m.opt.CA, wire.CmdlineKey+"="+wire.KeyAsk)
	}
	if want.Image != "" {
		args = append(args, wire.CmdlineImage+"="+bc.Image)
	}
	return args, nil
}
