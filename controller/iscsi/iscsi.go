// Package iscsi is an iSCSI target (RFC 7143) that shows images as disks which
// can only be read, to nodes that boot from them.
//
// It is a program of its own and not the kernel's target (LIO) or tgt: those
// want root, a configuration beside the head's and a device or file for each
// image, and many kernels have no target at all; reading needs little of the
// protocol. There is one connection to a session, no digests (nodes verify what
// they read by its hash), no login but by the initiator's address, and error
// recovery level 0: after a broken connection the initiator begins anew.
//
// A disk that is open keeps showing what it showed at login, whatever is
// uploaded meanwhile. The package must not decide what is shown to whom.
package iscsi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"muster/shared/service"
)

// Disk is what a target shows. Its methods are called one after the other.
type Disk interface {
	io.ReaderAt
	io.Closer
	Size() int64    // bytes
	Serial() string // names the content: hexadecimal, at least 16 digits
}

// Disks are what is served.
type Disks interface {
	// Targets gives the names that an initiator may see.
	Targets(from netip.Addr) []string
	// Open opens one of them, or another that it may read. The error is told
	// to nobody but the log.
	Open(from netip.Addr, name string) (Disk, error)
}

// Config is what a Target needs. All fields are required.
type Config struct {
	Addr  netip.AddrPort
	Disks Disks
	Log   *slog.Logger
}

// Bounds on what strangers can have.
const (
	maxConns  = 8192
	maxPerIP  = 8
	loginTime = 10 * time.Second
	sendTime  = 60 * time.Second
)

// Target serves.
type Target struct {
	Config
	listener net.Listener

	mu    sync.Mutex
	conns map[netip.Addr]int
	all   int
	open  map[string]int // serials
}

// New makes one.
func New(c Config) *Target {
	return &Target{Config: c, conns: map[netip.Addr]int{}, open: map[string]int{}}
}

// Part is the target as a service.
func (t *Target) Part() service.Part {
	return service.Part{Name: "iscsi", Doc: "Shows images as read-only disks to nodes that boot from them.", Listen: t.listen, Run: t.run}
}

// InUse gives the serials of the disks that are open.
func (t *Target) InUse() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for serial := range t.open {
		out = append(out, serial)
	}
	return out
}

// listen leaves the head without a target where the port is taken, which may
// be by the system's own.
func (t *Target) listen(ctx context.Context) (err error) {
	var lc net.ListenConfig
	if t.listener, err = lc.Listen(ctx, "tcp", t.Addr.String()); err != nil {
		t.Log.Error("no iSCSI target: nodes cannot boot with the style iscsi", "error", err)
		t.listener = nil
	}
	return nil
}

func (t *Target) run(ctx context.Context) error {
	if t.listener == nil {
		<-ctx.Done()
		return nil
	}
	var conns sync.WaitGroup
	defer conns.Wait()
	stop := context.AfterFunc(ctx, func() { t.listener.Close() })
	defer stop()
	for {
		conn, err := t.listener.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of descriptors, most likely
			t.Log.Warn("iSCSI", "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !t.enter(from) {
			conn.Close()
			continue
		}
		conns.Go(func() {
			defer t.leave(from)
			defer conn.Close()
			end := context.AfterFunc(ctx, func() { conn.Close() })
			defer end()
			s := &session{target: t, conn: conn, from: from, portal: conn.LocalAddr().String(), log: t.Log.With("initiator", from.String())}
			if err := s.serve(); err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
				s.log.Debug("iSCSI connection", "error", err)
			}
		})
	}
}

func (t *Target) enter(from netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all >= maxConns || t.conns[from] >= maxPerIP {
		return false
	}
	t.all++
	t.conns[from]++
	return true
}

func (t *Target) leave(from netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all--
	if t.conns[from]--; t.conns[from] == 0 {
		delete(t.conns, from)
	}
}

// hold notes that a disk is open, until release.
func (t *Target) hold(serial string) (release func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[serial]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.open[serial]--; t.open[serial] == 0 {
			delete(t.open, serial)
		}
	}
}
