package power

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"muster/controller/power/bmc"
)

// Sessions: how long one is kept that nobody uses, and how old one may get.
// BMCs have few, and end those that are silent for a minute.
const (
	idleTime = 10 * time.Second
	maxAge   = 25 * time.Second
)

// pool keeps sessions open for a while, one to each BMC, and lets one caller
// at a time use it: most BMCs do one thing at a time, and badly two.
type pool struct {
	mu    sync.Mutex
	slots map[[sha256.Size]byte]*slot
}

type slot struct {
	turn    chan struct{} // holds a token while nobody uses the session
	users   int           // that wait or have it, under the pool's lock
	machine bmc.Machine
	born    time.Time
	idle    *time.Timer
}

func key(t bmc.Target) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q %q %q", t.Scheme, t.Transport, t.Host, t.Port, t.User, t.Password, t.Path, t.Options.Encode()))
}

func (p *pool) take(k [sha256.Size]byte) *slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slots == nil {
		p.slots = map[[sha256.Size]byte]*slot{}
	}
	s := p.slots[k]
	if s == nil {
		s = &slot{turn: make(chan struct{}, 1)}
		s.turn <- struct{}{}
		p.slots[k] = s
	}
	s.users++
	if s.idle != nil {
		s.idle.Stop()
	}
	return s
}

// leave ends a use. The last user's session is closed after a while.
func (p *pool) leave(k [sha256.Size]byte, s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	if s.machine == nil {
		delete(p.slots, k)
		return
	}
	s.idle = time.AfterFunc(idleTime, func() { p.expire(k, s) })
}

func (p *pool) expire(k [sha256.Size]byte, s *slot) {
	p.mu.Lock()
	if s.users > 0 || p.slots[k] != s {
		p.mu.Unlock()
		return
	}
	delete(p.slots, k)
	p.mu.Unlock()
	if s.machine != nil {
		s.machine.Close()
	}
}

// purpose says what a session is used for.
type purpose int

const (
	asking   purpose = iota // may be done again
	ordering                // must not happen twice
)

// with runs fn with a session to t. A session that was kept may be one that
// the BMC has forgotten: a question is then asked once more with a new one. An
// order is given once, after a question has shown that the session is good.
func (p *pool) with(ctx context.Context, scheme bmc.Scheme, t bmc.Target, why purpose, fn func(context.Context, bmc.Machine) error) error {
	k := key(t)
	s := p.take(k)
	defer p.leave(k, s)
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.machine != nil && time.Since(s.born) > maxAge {
		s.drop()
	}
	if s.machine != nil && why == ordering {
		if _, err := s.machine.State(ctx); err != nil {
			s.drop()
		}
	}
	for {
		kept := s.machine != nil
		if !kept {
			m, err := scheme.Open(ctx, t)
			if err != nil {
				return err
			}
			s.machine, s.born = m, time.Now()
		}
		err := fn(ctx, s.machine)
		if err == nil || errors.Is(err, bmc.ErrUnsupported) {
			return err
		}
		s.drop()
		if !kept || why == ordering || ctx.Err() != nil {
			return err
		}
	}
}

// drop closes a session beside the caller, who has waited long enough.
func (s *slot) drop() {
	go s.machine.Close()
	s.machine = nil
}
