package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"muster/controller/api/apitest"
	"muster/controller/fleet"
	"muster/controller/store"
	"muster/controller/store/boltstore"
	"muster/shared/kind"
	"muster/shared/wire"
)

// disk is a store whose writes can be held up or refused.
type disk struct {
	store.Store
	full   atomic.Bool
	slow   atomic.Bool   // the next write waits for the test
	asked  chan struct{} // it has come
	resume chan struct{} // it may go on
	wrote  chan struct{} // it is done
}

func (d *disk) Update(ctx context.Context, fn func(store.Tx) error) (uint64, error) {
	if d.full.Load() {
		return 0, errors.New("the disk is full")
	}
	if d.slow.Swap(false) {
		d.asked <- struct{}{}
		<-d.resume
		defer func() { d.wrote <- struct{}{}; <-d.resume }()
	}
	return d.Store.Update(ctx, fn)
}

// noNodes is a registry without any.
type noNodes struct{ fleet.Nodes }

func (noNodes) All(string) []kind.Object { return nil }

func open(t *testing.T, s store.Store) *fleet.Fleet {
	t.Helper()
	f, err := fleet.Open(t.Context(), fleet.Options{
		Store: s, Nodes: noNodes{}, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Sign: func(csr []byte, _ string, _ time.Duration) ([][]byte, string, error) {
			return [][]byte{csr}, "serial-" + string(csr), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "db"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &disk{Store: s, asked: make(chan struct{}), resume: make(chan struct{}), wrote: make(chan struct{})}
}

// run runs the fleet until the function that it gives is called.
func run(t *testing.T, f *fleet.Fleet) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := apitest.Receive(t, done); err != nil {
			t.Errorf("the fleet ended with %v", err)
		}
	}
}

// TestLateWrite has a write that began before an enrolment reach the disk
// after it: what a head finds there after a crash must be the enrolment.
func TestLateWrite(t *testing.T) {
	d := newDisk(t)
	f := open(t, d)
	f.OpenBoot("u", addr)
	key, _ := f.Mint("u", addr)
	d.slow.Store(true)
	stop := run(t, f)
	if err := f.Report("u", fleet.Report{Status: json.RawMessage(`{"a":1}`)}); err != nil {
		t.Fatal(err)
	}
	apitest.Receive(t, d.asked)
	if _, err := f.Enrol(t.Context(), "u", addr, wire.Enrol{Key: key, CSR: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	d.resume <- struct{}{}
	apitest.Receive(t, d.wrote)
	after := open(t, d)
	expect(t, after.CertValid("u", "serial-1"), true)
	if _, err := after.Enrol(t.Context(), "u", addr, wire.Enrol{Key: key, CSR: []byte("2")}); err == nil {
		t.Error("the key is good again")
	}
	d.resume <- struct{}{}
	stop()
}

// TestFullDisk has the disk refuse: what was not stored is not taken for
// stored, and is stored later.
func TestFullDisk(t *testing.T) {
	d := newDisk(t)
	f := open(t, d)
	f.OpenBoot("u", addr)
	d.full.Store(true)
	if key, ok := f.Mint("u", addr); ok {
		t.Errorf("the key %q was given out and not stored", key)
	}
	d.full.Store(false)
	key, ok := f.Mint("u", addr)
	expect(t, ok, true)
	enrol := func(csr string) error {
		_, err := f.Enrol(t.Context(), "u", addr, wire.Enrol{Key: key, CSR: []byte(csr)})
		return err
	}
	d.full.Store(true)
	if enrol("1") == nil {
		t.Error("a certificate was given out and not stored")
	}
	expect(t, f.CertValid("u", "serial-1"), false)
	d.full.Store(false)
	if err := enrol("2"); err != nil {
		t.Errorf("the key is spent although nobody has a certificate: %v", err)
	}

	d.full.Store(true)
	failed := make(chan struct{}, 1)
	f = open(t, &told{d, failed})
	stop := run(t, f)
	if err := f.Report("u", fleet.Report{Status: json.RawMessage(`{"a":1}`)}); err != nil {
		t.Fatal(err)
	}
	apitest.Receive(t, failed)
	d.full.Store(false)
	stop()
	status, err := open(t, d).Status("u")
	if err != nil || status["a"] == nil {
		t.Errorf("after a write that failed the status is %v, %v", status, err)
	}
}

// told tells of writes that failed.
type told struct {
	*disk
	failed chan struct{}
}

func (s *told) Update(ctx context.Context, fn func(store.Tx) error) (uint64, error) {
	revision, err := s.disk.Update(ctx, fn)
	if err != nil {
		s.failed <- struct{}{}
	}
	return revision, err
}
