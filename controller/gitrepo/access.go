package gitrepo

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

const (
	mayRead  kind.Permission = "GitreposRead"
	mayWrite kind.Permission = "GitreposWrite"
)

// reader finds a repository that the caller may read: anybody a public one,
// who has a token and the permission a private one.
func (s *Repos) reader(w http.ResponseWriter, req *http.Request) (*object.Gitrepo, *repo, error) {
	o, r, err := s.find(req.PathValue("id"))
	if err == nil && !o.Public {
		_, err = s.authenticate(w, req, mayRead)
	}
	return o, r, err
}

// authenticate finds out who asks. Git's clients send a token as the password
// of any user, or as the user's name without a password.
func (s *Repos) authenticate(w http.ResponseWriter, req *http.Request, want kind.Permission) (admin string, err error) {
	if user, token, ok := req.BasicAuth(); ok && len(req.Header.Values("Authorization")) == 1 {
		if token == "" {
			token = user
		}
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+token)
	}
	caller, err := s.opt.Auth.Authenticate(req, want)
	if fault.Is(err, fault.Unauthenticated) { // makes git ask for what it has
		w.Header().Set("WWW-Authenticate", `Basic realm="muster: any user, a token as password", charset="UTF-8"`)
		w.Header().Add("WWW-Authenticate", "Bearer")
	}
	if err != nil {
		return "", err
	}
	return caller.Admin, nil
}

// Bounds on clients of git that are served at a time: packing costs memory.
const (
	maxServing     = 32
	maxServingEach = 16 // of one address
	gateWait       = 30 * time.Second
)

// turn runs fn when there is a place for one more client of git.
func (s *Repos) turn(req *http.Request, fn func() error) error {
	leave, err := s.gate.enter(req.Context(), api.CallerOf(req.Context()).Addr)
	if err != nil {
		return err
	}
	defer leave()
	return fn()
}

// gate lets in a bounded number, in all and from one address.
type gate struct {
	each  int
	slots chan struct{}

	mu   sync.Mutex
	from map[netip.Addr]int
}

func newGate(all, each int) *gate {
	return &gate{each: each, slots: make(chan struct{}, all), from: map[netip.Addr]int{}}
}

// enter waits for a place; the caller gives it back by leave.
func (g *gate) enter(ctx context.Context, addr netip.Addr) (leave func(), err error) {
	g.mu.Lock()
	full := g.from[addr] >= g.each
	if !full {
		g.from[addr]++
	}
	g.mu.Unlock()
	if full {
		return nil, fault.New(fault.TooMany, "%s has %d requests for git repositories under way; let one end.", addr, g.each)
	}
	release := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.from[addr]--; g.from[addr] == 0 {
			delete(g.from, addr)
		}
	}
	late := time.NewTimer(gateWait)
	defer late.Stop()
	select {
	case g.slots <- struct{}{}:
		return func() { <-g.slots; release() }, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
		err = fault.New(fault.Unavailable, "This head serves %d clients of git already; try again.", cap(g.slots))
	}
	release()
	return nil, err
}
