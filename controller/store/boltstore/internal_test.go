package boltstore

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"muster/controller/store"
)

// After a commit whose fate on disk is unknown nothing may be read or written.
func TestHalt(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	id := 0
	if _, err := s.Update(t.Context(), func(x store.Tx) error {
		id = x.(*tx).data.Tx().ID()
		return x.Put("a", nil)
	}); err != nil {
		t.Fatal(err)
	}
	if !s.committed(id) || s.committed(id+1) {
		t.Errorf("transaction %d should be committed and the next not: %t, %t", id, s.committed(id), s.committed(id+1))
	}
	cause := errors.New("input/output error")
	s.halt(cause)
	nothing := func(store.Tx) error { t.Error("a transaction ran"); return nil }
	_, updateErr := s.Update(t.Context(), nothing)
	for name, err := range map[string]error{"Update": updateErr, "View": s.View(t.Context(), nothing)} {
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "then restart") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A damaged entry of the feed is refused, never misread with a panic; what is
// accepted comes out of the encoder again.
func FuzzDecodeChanges(f *testing.F) {
	f.Add(encodeChanges([]store.Change{{Key: "a", Value: []byte("1")}, {Key: "b"}, {Key: "c", Value: []byte{}}}))
	f.Add([]byte{})
	f.Add([]byte{0, 0})
	f.Add([]byte{1, 'a'})
	f.Add([]byte{1, 'a', 200})
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 'a'})
	f.Fuzz(func(t *testing.T, entry []byte) {
		changes, err := decodeChanges(entry)
		if err != nil {
			return
		}
		again, err := decodeChanges(encodeChanges(changes))
		if err != nil || !reflect.DeepEqual(changes, again) {
			t.Errorf("%q became %q, %v", changes, again, err)
		}
	})
}
