package boltstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"muster/controller/store"
	"muster/controller/store/boltstore"
	"muster/controller/store/storetest"
)

func open(t testing.TB, path string, opt boltstore.Options) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(s store.Store, key string, value []byte) (uint64, error) {
	return s.Update(context.Background(), func(tx store.Tx) error { return tx.Put(key, value) })
}

func mustPut(t *testing.T, s store.Store, key string, value []byte) {
	t.Helper()
	if _, err := put(s, key, value); err != nil {
		t.Fatal(err)
	}
}

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T, dir string) store.Store {
		return open(t, filepath.Join(dir, "db"), boltstore.Options{FeedLength: storetest.MinFeed})
	})
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := filepath.Join(dir, "good")
	s := open(t, good, boltstore.Options{})
	for i := range 2000 {
		if i%100 == 0 {
			mustPut(t, s, fmt.Sprint("key", i), bytes.Repeat([]byte("v"), 9000))
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	wiped := bytes.Clone(content)
	clear(wiped[2*4096:])
	foreign := filepath.Join(dir, "foreign")
	db, err := bolt.Open(foreign, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("grafana")); return err })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file("text", []byte(strings.Repeat("this is no database\n", 1000))): "restore it from a backup",
		file("short", content[:100]):                                        "restore it from a backup",
		file("pages-lost", content[:16*4096]):                               "restore it from a backup",
		file("wiped", wiped):                                                "restore it from a backup",
		foreign:                                                             `another program (it has a bucket "grafana")`,
		filepath.Join(dir, "missing", "db"):                                 "no such file or directory",
		dir:                                                                 "is a directory",
	} {
		for range 2 { // the refusal must not leave the file locked
			s, err := boltstore.Open(path, boltstore.Options{})
			if err == nil {
				t.Errorf("%s: opened", path)
				s.Close()
			} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: the error does not name the file and say %q: %v", path, want, err)
			}
		}
	}
}

// A page that is damaged while the store is open, or was not read by Open.
func TestDamagedPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path, boltstore.Options{})
	for i := range 200 {
		mustPut(t, s, fmt.Sprintf("key%03d", i), bytes.Repeat([]byte("v"), 500))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for page := 4; page < len(content)/4096; page++ { // spares the metas and what a new file begins with
		p := content[page*4096:][:4096]
		if bytes.Contains(p, []byte("key")) {
			clear(p[:16])
		}
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, boltstore.Options{})
	defer s.Close()
	scan := func(tx store.Tx) error {
		for _, err := range tx.Scan("", "") {
			if err != nil {
				return err
			}
		}
		return nil
	}
	_, updateErr := s.Update(t.Context(), scan)
	_, putErr := put(s, "key000", nil)
	for name, err := range map[string]error{"View": s.View(t.Context(), scan), "Update": updateErr, "Put": putErr} {
		if err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
			t.Errorf("%s of a damaged page: %v", name, err)
		}
	}
}

func TestOpenLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	defer open(t, path, boltstore.Options{}).Close()
	start := time.Now()
	s, err := boltstore.Open(path, boltstore.Options{})
	if err == nil {
		s.Close()
		t.Fatal("opened twice")
	}
	if !strings.Contains(err.Error(), path+" is in use by another process") {
		t.Error(err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}

// A commit for which there is no room fails alone: what was acknowledged
// stays, and the store goes on when there is room again.
func TestNoSpace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path, boltstore.Options{})
	defer func() { s.Close() }()
	mustPut(t, s, "a", []byte("1"))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	tight := before
	tight.Cur = uint64(info.Size())
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &tight); err != nil {
		t.Fatal(err)
	}
	_, err = put(s, "b", make([]byte, store.MaxValue))
	if e := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); e != nil {
		t.Fatal(e)
	}
	if err == nil || !strings.Contains(err.Error(), "cannot write "+path) {
		t.Fatalf("a commit that does not fit: %v", err)
	}
	mustPut(t, s, "c", []byte("2"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, boltstore.Options{})
	checkFeed(t, s, 2)
	if v := get(t, s, "b"); v != nil {
		t.Error("the failed commit is there")
	}
}

func get(t *testing.T, s store.Store, key string) (v []byte) {
	t.Helper()
	err := s.View(t.Context(), func(tx store.Tx) (err error) {
		v, err = tx.Get(key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// checkFeed wants the feed to lead without gaps to revision newest.
func checkFeed(t *testing.T, s store.Store, newest uint64) map[string]string {
	t.Helper()
	if s.Revision() != newest {
		t.Fatalf("revision %d, want %d", s.Revision(), newest)
	}
	state := map[string]string{}
	if newest == 0 {
		return state
	}
	next := uint64(1)
	for c, err := range s.Watch(t.Context(), "", 0) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Revision != next {
			t.Fatalf("revision %d on the feed, want %d", c.Revision, next)
		}
		for _, ch := range c.Changes {
			state[ch.Key] = string(ch.Value)
		}
		if next++; c.Revision == newest {
			break
		}
	}
	return state
}

// Updates that wait share commits, and stay in bounds; the feed's bound in
// bytes shortens it and its pages are used again.
func TestFeedBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path, boltstore.Options{FeedBytes: 4 << 20})
	defer s.Close()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 25 {
				if _, err := put(s, "k", make([]byte, 256<<10)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 64<<20 {
		t.Errorf("100 MiB through a feed of 4 MiB made a file of %d MiB", info.Size()>>20)
	}
	for _, err := range s.Watch(t.Context(), "", 0) {
		if !errors.Is(err, store.ErrCompacted) {
			t.Errorf("Watch from the beginning: %v", err)
		}
		break
	}
	for c, err := range s.Watch(t.Context(), "", s.Revision()-8) {
		if err != nil || c.Revision != s.Revision()-7 {
			t.Errorf("Watch of the newest commits: %d, %v", c.Revision, err)
		}
		break
	}
}
