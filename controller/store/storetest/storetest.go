// Package storetest is the suite that every backend of store.Store passes: its
// contract, as behaviour. It must not know any backend, nor ask for more than
// the contract promises.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"muster/controller/store"
)

// Open opens the store that lives in dir, creating it when there is none; it
// fails the test when it cannot. The suite closes what it opens, and opens a
// dir again only after that. The feed must hold MinFeed commits and no more
// than MaxFeed.
type Open func(t *testing.T, dir string) store.Store

// Bounds of the length of the feed in this suite, in commits.
const (
	MinFeed = 2000
	MaxFeed = 4000
)

// Run runs the suite.
func Run(t *testing.T, open func(t *testing.T, dir string) store.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"GetPutDelete", testGetPutDelete},
		{"Bounds", testBounds},
		{"Scan", testScan},
		{"ScanOwnWrites", testScanOwnWrites},
		{"ValuesOutliveTransaction", testValuesOutlive},
		{"FailureChangesNothing", testFailure},
		{"PanicAndGoexit", testPanic},
		{"EndedContext", testEndedContext},
		{"View", testView},
		{"Counter", testCounter},
		{"UniqueIndices", testUniqueIndices},
		{"ConsistentViews", testConsistentViews},
		{"Revisions", testRevisions},
		{"Unlogged", testUnlogged},
		{"WatchOrder", testWatchOrder},
		{"WatchPrefix", testWatchPrefix},
		{"WatchResumes", testWatchResumes},
		{"WatchCompacted", testWatchCompacted},
		{"SlowWatcher", testSlowWatcher},
		{"WatchEnds", testWatchEnds},
		{"Close", testClose},
		{"Model", testModel},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open) })
	}
}

// fresh opens an empty store for the length of the test.
func fresh(t *testing.T, open Open) store.Store {
	t.Helper()
	s := open(t, t.TempDir())
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func update(t *testing.T, s store.Store, fn func(store.Tx) error) uint64 {
	t.Helper()
	revision, err := s.Update(t.Context(), fn)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	return revision
}

// put writes keys and values given in turn, in one transaction.
func put(t *testing.T, s store.Store, pairs ...string) uint64 {
	t.Helper()
	return update(t, s, func(tx store.Tx) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := tx.Put(pairs[i], []byte(pairs[i+1])); err != nil {
				return err
			}
		}
		return nil
	})
}

func view(t *testing.T, s store.Store, fn func(store.Tx) error) {
	t.Helper()
	if err := s.View(t.Context(), fn); err != nil {
		t.Fatalf("View: %v", err)
	}
}

// list gives "key=value" for what a scan finds.
func list(tx store.Tx, prefix, from string) ([]string, error) {
	var found []string
	for p, err := range tx.Scan(prefix, from) {
		if err != nil {
			return found, err
		}
		found = append(found, p.Key+"="+string(p.Value))
	}
	return found, nil
}

func wantList(t *testing.T, tx store.Tx, prefix, from string, want ...string) {
	t.Helper()
	got, err := list(tx, prefix, from)
	if err != nil {
		t.Errorf("Scan(%q, %q): %v", prefix, from, err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("Scan(%q, %q) = %q, want %q", prefix, from, got, want)
	}
}

func wantGet(t *testing.T, tx store.Tx, key, want string) {
	t.Helper()
	got, err := tx.Get(key)
	if err != nil || got == nil || string(got) != want {
		t.Errorf("Get(%q) = %q (nil: %t), %v, want %q", key, got, got == nil, err, want)
	}
}

func wantNone(t *testing.T, tx store.Tx, key string) {
	t.Helper()
	if got, err := tx.Get(key); err != nil || got != nil {
		t.Errorf("Get(%q) = %q, %v, want nil", key, got, err)
	}
}

// collect takes n commits from the feed.
func collect(t *testing.T, s store.Store, prefix string, after uint64, n int) []store.Commit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var commits []store.Commit
	if n == 0 {
		return nil
	}
	for c, err := range s.Watch(ctx, prefix, after) {
		if err != nil {
			t.Fatalf("Watch(%q, %d) after %d of %d commits: %v", prefix, after, len(commits), n, err)
		}
		if commits = append(commits, c); len(commits) == n {
			break
		}
	}
	return commits
}

// show makes commits comparable.
func show(commits []store.Commit) []string {
	var lines []string
	for _, c := range commits {
		line := fmt.Sprint(c.Revision)
		for _, ch := range c.Changes {
			if ch.Value == nil {
				line += " -" + ch.Key
			} else {
				line += " " + ch.Key + "=" + string(ch.Value)
			}
		}
		lines = append(lines, line)
	}
	return lines
}
