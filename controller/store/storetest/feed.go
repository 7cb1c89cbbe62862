package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"muster/controller/store"
)

func testRevisions(t *testing.T, open Open) {
	dir := t.TempDir()
	s := open(t, dir)
	if s.Revision() != 0 {
		t.Errorf("an empty store has revision %d", s.Revision())
	}
	for want := uint64(1); want <= 3; want++ {
		if got := put(t, s, "k", fmt.Sprint(want)); got != want || s.Revision() != want {
			t.Errorf("revision %d and then %d, want %d", got, s.Revision(), want)
		}
	}
	for name, fn := range map[string]func(store.Tx) error{
		"nothing written": func(tx store.Tx) error { _, err := tx.Get("k"); return err },
		"nothing deleted": func(tx store.Tx) error { return tx.Delete("never") },
		"put and deleted": func(tx store.Tx) error { return errors.Join(tx.Put("new", nil), tx.Delete("new")) },
	} {
		if got := update(t, s, fn); got != 3 || s.Revision() != 3 {
			t.Errorf("%s: revision %d, want 3", name, got)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	if s.Revision() != 3 {
		t.Errorf("revision %d after opening anew, want 3", s.Revision())
	}
	if got := put(t, s, "k", "4"); got != 4 {
		t.Errorf("revision %d follows 3", got)
	}
}

func testUnlogged(t *testing.T, open Open) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "a", "1")
	if r := put(t, s, "~a", "busy", store.Unlogged, "alone"); r != 1 {
		t.Errorf("unlogged keys gave revision %d, want 1", r)
	}
	if r := put(t, s, "~a", "idle", "b", "2", "a~", "3"); r != 2 {
		t.Errorf("logged and unlogged keys gave revision %d, want 2", r)
	}
	update(t, s, func(tx store.Tx) error { return tx.Delete(store.Unlogged) })
	put(t, s, "c", "4")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	view(t, s, func(tx store.Tx) error {
		wantList(t, tx, store.Unlogged, "", "~a=idle")
		return nil
	})
	want := []string{"1 a=1", "2 a~=3 b=2", "3 c=4"}
	if got := show(collect(t, s, "", 0, 3)); !slices.Equal(got, want) {
		t.Errorf("the feed is %q, want %q", got, want)
	}
}

// testWatchOrder has watchers that begin before, while and after many write.
func testWatchOrder(t *testing.T, open Open) {
	const writers, rounds, total = 16, 25, 16 * 25
	s := fresh(t, open)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch := func(after uint64) error {
		next, last := after+1, map[string]string{}
		for c, err := range s.Watch(ctx, "w/", after) {
			if err != nil {
				return err
			}
			if c.Revision != next || len(c.Changes) != 2 {
				return fmt.Errorf("revision %d with %d changes, want %d with 2", c.Revision, len(c.Changes), next)
			}
			for _, ch := range c.Changes {
				if string(ch.Value) <= last[ch.Key] {
					return fmt.Errorf("%s=%s came after %s", ch.Key, ch.Value, last[ch.Key])
				}
				last[ch.Key] = string(ch.Value)
			}
			if next++; c.Revision == total {
				return nil
			}
		}
		return errors.New("the feed ended without an error")
	}
	each(writers+6, func(i int) {
		if i >= writers {
			after := uint64(0)
			if i%2 == 1 {
				after = s.Revision()
			}
			if err := watch(after); err != nil {
				t.Error(err)
			}
			return
		}
		for round := range rounds {
			v := fmt.Appendf(nil, "%03d", round)
			_, err := s.Update(t.Context(), func(tx store.Tx) error {
				return errors.Join(tx.Put(fmt.Sprintf("w/%d/b", i), v), tx.Put(fmt.Sprintf("w/%d/a", i), v))
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
	if err := watch(0); err != nil {
		t.Error(err)
	}
}

func testWatchPrefix(t *testing.T, open Open) {
	s := fresh(t, open)
	put(t, s, "n/1", "a", "o/1", "b")
	put(t, s, "n", "c", "n0", "d")
	put(t, s, "n/2", "e", "n/1", "f", "m", "g")
	update(t, s, func(tx store.Tx) error { return errors.Join(tx.Delete("n/1"), tx.Put("n/3", nil)) })
	put(t, s, "x", "y")
	for prefix, want := range map[string][]string{
		"n/":  {"1 n/1=a", "3 n/1=f n/2=e", "4 -n/1 n/3="},
		"n/2": {"3 n/2=e"},
		"n":   {"1 n/1=a", "2 n=c n0=d", "3 n/1=f n/2=e", "4 -n/1 n/3="},
		"":    {"1 n/1=a o/1=b", "2 n=c n0=d", "3 m=g n/1=f n/2=e", "4 -n/1 n/3=", "5 x=y"},
	} {
		if got := show(collect(t, s, prefix, 0, len(want))); !slices.Equal(got, want) {
			t.Errorf("prefix %q: %q, want %q", prefix, got, want)
		}
	}
	if got := show(collect(t, s, "n/", 3, 1)); !slices.Equal(got, []string{"4 -n/1 n/3="}) {
		t.Errorf("after revision 3: %q", got)
	}
}

func testWatchResumes(t *testing.T, open Open) {
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 20 {
		put(t, s, "k", fmt.Sprint(i))
	}
	before := show(collect(t, s, "", 0, 20))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	feed := s.Watch(t.Context(), "", 0) // runs from disk into what is new
	go func() {
		for i := range 20 {
			if _, err := s.Update(t.Context(), func(tx store.Tx) error { return setNumber(tx, "k", 20+i) }); err != nil {
				t.Error(err)
			}
		}
	}()
	var got []string
	for c, err := range feed {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, show([]store.Commit{c})...); len(got) == 40 {
			break
		}
	}
	if !slices.Equal(got[:20], before) {
		t.Errorf("after opening anew the feed is %q, was %q", got[:20], before)
	}
	for i, line := range got {
		if want := fmt.Sprintf("%d k=%d", i+1, i); line != want {
			t.Errorf("%q, want %q", line, want)
		}
	}
}

func testWatchCompacted(t *testing.T, open Open) {
	dir := t.TempDir()
	s := open(t, dir)
	defer func() { s.Close() }()
	put(t, s, "first", "1")
	each(64, func(i int) {
		for range (MaxFeed + 500) / 64 {
			if _, err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(fmt.Sprint("k", i), nil) }); err != nil {
				t.Error(err)
				return
			}
		}
	})
	newest := s.Revision()
	for range 2 {
		for _, after := range []uint64{0, 1, newest + 1} {
			if err := firstError(t, s, after); !errors.Is(err, store.ErrCompacted) {
				t.Errorf("Watch after revision %d of %d: %v", after, newest, err)
			}
		}
		if c := collect(t, s, "", newest-MinFeed+1, MinFeed-1); c[0].Revision != newest-MinFeed+2 {
			t.Errorf("the feed continues with revision %d", c[0].Revision)
		}
		view(t, s, func(tx store.Tx) error {
			wantGet(t, tx, "first", "1")
			return nil
		})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
	}
}

func firstError(t *testing.T, s store.Store, after uint64) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, err := range s.Watch(ctx, "", after) {
		return err
	}
	return errors.New("the feed ended without an element")
}

// testSlowWatcher has a watcher that waits for more to be written than any
// backend should keep for it in memory.
func testSlowWatcher(t *testing.T, open Open) {
	const commits = 1500
	s := fresh(t, open)
	put(t, s, "k", "0")
	value := []byte(strings.Repeat("x", 4000))
	n := uint64(0)
	for c, err := range s.Watch(t.Context(), "", 0) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; c.Revision != n {
			t.Fatalf("revision %d, want %d", c.Revision, n)
		}
		if n == 1 {
			each(50, func(int) {
				for range commits / 50 {
					if _, err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put("k", value) }); err != nil {
						t.Error(err)
					}
				}
			})
		}
		if n == commits+1 {
			break
		}
	}
}

func testWatchEnds(t *testing.T, open Open) {
	s := fresh(t, open)
	put(t, s, "a", "1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errs []error
	for _, err := range s.Watch(ctx, "", 0) {
		errs = append(errs, err)
		cancel()
	}
	if len(errs) != 2 || errs[0] != nil || !errors.Is(errs[1], context.Canceled) {
		t.Errorf("a watcher whose context ended got %v", errs)
	}
}

func testClose(t *testing.T, open Open) {
	s := fresh(t, open)
	put(t, s, "a", "1")
	ended := make(chan error, 2)
	for range 2 {
		watching := make(chan struct{})
		go func() {
			for c, err := range s.Watch(t.Context(), "", 0) {
				if err != nil {
					ended <- err
				} else if c.Revision == 1 {
					close(watching)
				}
			}
		}()
		<-watching
	}
	began, proceed := make(chan struct{}, 2), make(chan struct{})
	results := make(chan error, 2)
	once := func(tx store.Tx) error {
		select {
		case began <- struct{}{}:
		default:
		}
		<-proceed
		return nil
	}
	go func() {
		results <- s.View(t.Context(), func(tx store.Tx) error {
			if err := once(tx); err != nil {
				return err
			}
			_, err := tx.Get("a")
			return err
		})
	}()
	<-began
	go func() {
		_, err := s.Update(t.Context(), func(tx store.Tx) error { return errors.Join(once(tx), tx.Put("b", nil)) })
		results <- err
	}()
	<-began
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for range 2 {
		if err := <-ended; !errors.Is(err, store.ErrClosed) {
			t.Errorf("a watcher ended with %v", err)
		}
	}
	select {
	case err := <-closed:
		t.Errorf("Close did not wait for transactions: %v", err)
	default:
	}
	close(proceed)
	for range 2 {
		if err := <-results; err != nil {
			t.Errorf("a transaction under way at Close: %v", err)
		}
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
	nothing := func(store.Tx) error { t.Error("a transaction ran after Close"); return nil }
	_, err := s.Update(t.Context(), nothing)
	for name, err := range map[string]error{
		"Update": err, "View": s.View(t.Context(), nothing), "Watch": firstError(t, s, 0), "Close": s.Close(),
	} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}
