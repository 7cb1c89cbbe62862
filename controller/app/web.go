package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/shared/service"
)

// Bounds on HTTP that hold for every route. Bodies have their own.
const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	maxHeader  = 64 << 10 // bytes
	drainTime  = 5 * time.Second
)

// doors are the addresses at which the API answers now, by the name of the
// service.
type doors struct {
	noting sync.Mutex // held while it is written where they are

	mu   sync.Mutex
	open map[string]net.Addr
}

func (d *doors) set(name string, a net.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[string]net.Addr{}
	}
	if d.open[name] = a; a == nil {
		delete(d.open, name)
	}
}

func (d *doors) get(name string) net.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[name]
}

// web is one listener of the API.
func (h *Head) web(name, addr string, conf *tls.Config) service.Part {
	var l net.Listener
	var reload func(context.Context) error
	if conf != nil {
		reload = func(context.Context) error { return h.ca.Rename(nil, h.addresses()) }
	}
	return service.Part{
		Name: name, Doc: "Serves the API over " + strings.ToUpper(name) + ".", Stage: service.Front, Door: "API", Reload: reload,
		Listen: func(ctx context.Context) (err error) {
			if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", addr); err == nil {
				h.doors.set(name, l.Addr())
			}
			return err
		},
		Run: func(ctx context.Context) error {
			defer h.doors.set(name, nil)
			srv := &http.Server{
				Handler: h.handler, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
				TLSConfig: conf, ErrorLog: log.New(connections{h}, "", 0),
			}
			stopped := make(chan struct{})
			stop := context.AfterFunc(ctx, func() {
				defer close(stopped)
				drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
				defer cancel()
				if srv.Shutdown(drain) != nil {
					srv.Close() // what did not finish by now is cut off
				}
			})
			var err error
			if conf == nil {
				err = srv.Serve(l)
			} else {
				err = srv.ServeTLS(l, "", "")
			}
			if stop() { // not told to stop: the listener failed
				return err
			}
			<-stopped
			return nil
		},
	}
}

// connections takes what the server logs of connections that came to nothing:
// mostly what strangers do. A node whose certificate has expired is told of.
type connections struct{ h *Head }

func (c connections) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	c.h.log.Debug(text)
	if rest, ok := strings.CutPrefix(text, "http: TLS handshake error from "); ok && strings.Contains(rest, "certificate has expired") {
		from, _, _ := strings.Cut(rest, ": ")
		if ap, err := netip.ParseAddrPort(from); err == nil {
			if uid, ok := c.h.dir.NodeByAddr(ap.Addr().Unmap()); ok {
				c.h.fleet.Doubt(uid, "its certificate has expired: boot it again, or let DELETE /node/<UID>/identity make its address speak for it")
			}
		}
	}
	return len(line), nil
}

// announce writes where this head listens, for the command line on this host.
func (h *Head) announce() error {
	h.doors.noting.Lock()
	defer h.doors.noting.Unlock()
	where := map[string]string{}
	for _, name := range []string{"http", "https"} {
		if a := h.doors.get(name); a != nil {
			where[name] = name + "://" + reachable(a)
		}
	}
	raw, err := json.Marshal(where)
	if err != nil {
		return err
	}
	h.log.Info("serving", "http", where["http"], "https", where["https"], "data", h.cfg.Data, "version", h.version)
	path := filepath.Join(h.cfg.Data, "head.json")
	if err := os.WriteFile(path+".new", append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// reachable turns "any address" into one that a local client can dial.
func reachable(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil || !ap.Addr().IsUnspecified() {
		return a.String()
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ap.Port()).String()
}

// peerURL is where other heads reach this one: at the address that it listens
// on, else at that of the boot interface, else at the first of its own.
func (h *Head) peerURL() string {
	name, a := "https", h.doors.get("https")
	if a == nil {
		if name, a = "http", h.doors.get("http"); a == nil {
			return ""
		}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil || !ap.Addr().IsUnspecified() {
		return name + "://" + a.String()
	}
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	for _, own := range h.addresses() {
		if !own.IsLoopback() {
			addr = own
			break
		}
	}
	return name + "://" + netip.AddrPortFrom(addr, ap.Port()).String()
}

// addresses are those that clients may dial: the certificate names them.
func (h *Head) addresses() []netip.Addr {
	out := slices.Clone(h.dir.heads)
	own, err := net.InterfaceAddrs()
	if err != nil {
		return out
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() && !slices.Contains(out, p.Addr()) {
			out = append(out, p.Addr())
		}
	}
	return out
}
