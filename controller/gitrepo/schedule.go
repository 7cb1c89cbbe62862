package gitrepo

import (
	"context"
	"errors"
	"hash/fnv"
	"math"
	"sync"
	"time"

	"muster/shared/fault"
	"muster/shared/object"
)

// How synchronization by itself goes about it.
const (
	atOnce     = 4                // repositories that are synchronized at a time
	spread     = time.Minute      // over which those that are due at a start are spread
	firstRetry = 30 * time.Second // after a failure, then twice as long each time
	lastRetry  = time.Hour        // but no longer than this, or the repository's period
	patience   = 5 * time.Minute  // for the first synchronization, which readers wait for
)

// attempt synchronizes as usual and remembers how that ended. Caller holds the lock.
func (s *Repos) attempt(ctx context.Context, o *object.Gitrepo, r *repo) error {
	j, begun := s.usual(o), s.opt.Now()
	_, err := r.sync(ctx, j)
	if ctx.Err() != nil {
		return ctx.Err() // says nothing about the remote
	}
	return errors.Join(plain(err), s.ended(o, r, j, begun, plain(err)))
}

// ended remembers how a synchronization went. That is no part of the object: what
// users wrote there changes only by them.
func (s *Repos) ended(o *object.Gitrepo, r *repo, j job, begun time.Time, err error) error {
	now := s.opt.Now()
	last := &Last{Time: seconds(now), Action: j.action, Seconds: math.Round(now.Sub(begun).Seconds()*1000) / 1000}
	if err != nil {
		last.Error = fault.Of(err).Reason
	}
	before := r.known()
	stored := r.remember(func(st *state) {
		if st.Remote != j.remote.print() {
			st.Failures = 0
		}
		st.Remote, st.Last, st.Grown = j.remote.print(), last, true
		if err != nil {
			st.Failures++
			return
		}
		st.Synced, st.Failures = last.Time, 0
	})
	if was := before.Last; last.Error != "" && (was == nil || was.Error != last.Error) { // once, not at each attempt
		s.opt.Log.Warn("git repository cannot be synchronized", "name", o.Name, "error", last.Error)
	}
	s.nudge()
	return stored
}

// plain gives what git said where it is not explained any better.
func plain(err error) error {
	var f *failure
	var known *fault.Error
	if err != nil && errors.As(err, &f) && !errors.As(err, &known) {
		return &fault.Error{Code: fault.Conflict, Reason: f.Error(), Err: err}
	}
	return err
}

// settled waits until a repository that has a remote holds what that had at
// least once: an empty clone would be a lie.
func (s *Repos) settled(ctx context.Context, o *object.Gitrepo, r *repo) error {
	m := remoteOf(o)
	if m.url == "" || r.known().Synced > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s.change(ctx, r, func(ctx context.Context) error {
		st := r.known()
		if st.Synced > 0 { // somebody else did it meanwhile
			return nil
		}
		if st.Last != nil && st.Remote == m.print() && s.opt.Now().Before(moment(st.Last.Time).Add(firstRetry)) {
			return fault.New(fault.Unavailable, "The repository was never synchronized: %s", st.Last.Error)
		}
		return s.attempt(ctx, o, r)
	})
}

// usual is what a repository is synchronized by when nobody says how.
func (s *Repos) usual(o *object.Gitrepo) job {
	j := job{action: actPull, mapping: object.Mappings(o.BranchMap), remote: remoteOf(o), author: s.author("")}
	if j.remote.mirror {
		j.action = actReset
	}
	return j
}

// due is when a repository is to be synchronized next; false for never.
func (s *Repos) due(o *object.Gitrepo, st state, started time.Time) (time.Time, bool) {
	m, period := remoteOf(o), o.SyncPeriod.Duration()
	switch {
	case m.url == "":
		return time.Time{}, false
	case st.Last == nil || st.Remote != m.print(): // new, or with another remote
		return time.Time{}, true
	case st.Failures == 0 && period == 0:
		return time.Time{}, false
	}
	wait := period
	if st.Failures > 0 {
		longest := max(lastRetry, period)
		wait = max(period, firstRetry) << min(st.Failures-1, 20)
		if wait > longest || wait <= 0 {
			wait = longest
		}
	}
	at := moment(st.Last.Time).Add(wait)
	if at.Before(started) { // all that came due while the head was down, but not at once
		h := fnv.New32a()
		h.Write([]byte(o.UID))
		at = started.Add(time.Duration(h.Sum32()) % min(spread, max(wait, time.Second)))
	}
	return at, true
}

// round is the state of Run.
type round struct {
	*Repos
	started time.Time
	workers sync.WaitGroup
	slots   chan struct{}
	done    chan worked
	busy    map[string]bool      // being worked on
	rest    map[string]time.Time // not before then, whatever is due: it could not even be tried
}

// worked says that the work on a repository has ended; the error is one that
// kept it from even being tried.
type worked struct {
	uid string
	err error
}

// Run synchronizes what is due and removes what is deleted, until ctx ends.
func (s *Repos) Run(ctx context.Context) error {
	n := &round{Repos: s, started: s.opt.Now(), slots: make(chan struct{}, atOnce), done: make(chan worked), busy: map[string]bool{}, rest: map[string]time.Time{}}
	defer n.workers.Wait()
	n.workers.Go(func() { s.watch(ctx) })
	for {
		timer := time.NewTimer(n.begin(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case w := <-n.done:
			delete(n.busy, w.uid)
			delete(n.rest, w.uid)
			if w.err != nil {
				n.rest[w.uid] = s.opt.Now().Add(firstRetry)
			}
		case <-s.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// begin begins what is due and gives the time until something else is.
func (n *round) begin(ctx context.Context) time.Duration {
	now := n.opt.Now()
	next := now.Add(time.Hour)
	for _, o := range n.opt.Objects.All(object.KindGitrepo) {
		o := o.(*object.Gitrepo)
		st := n.place(o.UID).known()
		at, fetch := n.due(o, st, n.started)
		if n.busy[o.UID] || !fetch && !st.Grown {
			continue
		}
		if rest := n.rest[o.UID]; rest.After(at) {
			at = rest
		}
		if at.After(now) {
			if at.Before(next) {
				next = at
			}
			continue
		}
		select {
		case n.slots <- struct{}{}:
			n.busy[o.UID] = true
			n.workers.Go(func() { n.finish(ctx, o, fetch) })
		default: // whoever ends makes room and wakes Run
		}
	}
	return next.Sub(now)
}

// finish works on one repository.
func (n *round) finish(ctx context.Context, o *object.Gitrepo, fetch bool) {
	err := n.work(ctx, o, fetch)
	<-n.slots
	select {
	case n.done <- worked{o.UID, err}:
	case <-ctx.Done():
	}
}

// work synchronizes one repository where that is due, and repacks it.
func (s *Repos) work(ctx context.Context, o *object.Gitrepo, fetch bool) error {
	r := s.place(o.UID)
	err := s.change(ctx, r, func(ctx context.Context) error {
		before := r.known()
		if fetch {
			if err := s.attempt(ctx, o, r); err != nil {
				return nil // told
			}
		}
		if fetch && !before.Grown {
			return nil // next time
		}
		ctx, cancel := context.WithTimeout(ctx, fetchTime)
		defer cancel()
		_, err := r.git.do(ctx, run{dir: r.bare(), args: []string{"gc", "--auto", "--quiet"}})
		return errors.Join(err, r.remember(func(st *state) { st.Grown = false }))
	})
	if err != nil && ctx.Err() == nil && !fault.Is(err, fault.NotFound) {
		s.opt.Log.Warn("git repository cannot be kept", "name", o.Name, "error", err)
	}
	return err
}

// watch follows the objects.
func (s *Repos) watch(ctx context.Context) {
	for change, err := range s.opt.Objects.Changes(ctx, s.opt.Objects.Revision()) {
		if err != nil {
			return // ctx ended, or the store: then the head ends too
		}
		if change.Kind != object.KindGitrepo {
			continue
		}
		if change.New == nil {
			s.forget(ctx, change.UID)
		}
		s.nudge()
	}
}

// nudge makes Run look again.
func (s *Repos) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func moment(seconds float64) time.Time { return time.UnixMicro(int64(seconds * 1e6)) }
