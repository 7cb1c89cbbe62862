package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"muster/controller/store"
)

// patience is how long the suite waits for what must happen at once.
const patience = 20 * time.Second

func testGetPutDelete(t *testing.T, open Open) {
	s := fresh(t, open)
	put(t, s, "a", "1", "b", "2", "empty", "")
	update(t, s, func(tx store.Tx) error { return tx.Put("nil", nil) })
	view(t, s, func(tx store.Tx) error {
		wantGet(t, tx, "a", "1")
		wantGet(t, tx, "empty", "")
		wantGet(t, tx, "nil", "")
		wantNone(t, tx, "c")
		wantNone(t, tx, "A")
		return nil
	})
	update(t, s, func(tx store.Tx) error {
		for _, err := range []error{tx.Delete("a"), tx.Delete("never"), tx.Put("b", []byte("3")), tx.Put("c", []byte("4"))} {
			if err != nil {
				return err
			}
		}
		wantNone(t, tx, "a")
		wantGet(t, tx, "b", "3")
		if err := tx.Delete("c"); err != nil {
			return err
		}
		wantNone(t, tx, "c")
		return tx.Put("a", []byte("again"))
	})
	view(t, s, func(tx store.Tx) error {
		wantList(t, tx, "", "", "a=again", "b=3", "empty=", "nil=")
		return nil
	})
}

func testBounds(t *testing.T, open Open) {
	s := fresh(t, open)
	longest := strings.Repeat("k", store.MaxKey)
	largest := bytes.Repeat([]byte("v"), store.MaxValue)
	update(t, s, func(tx store.Tx) error { return tx.Put(longest, []byte("x")) })
	update(t, s, func(tx store.Tx) error { return tx.Put("largest", largest) })
	for name, try := range map[string]func(tx store.Tx) error{
		"Put of an empty key":      func(tx store.Tx) error { return tx.Put("", []byte("x")) },
		"Put of a key too long":    func(tx store.Tx) error { return tx.Put(longest+"k", []byte("x")) },
		"Put of a value too large": func(tx store.Tx) error { return tx.Put("k", append(largest, 'v')) },
		"Delete of an empty key":   func(tx store.Tx) error { return tx.Delete("") },
		"Delete of a key too long": func(tx store.Tx) error { return tx.Delete(longest + "k") },
		"Get of an empty key":      func(tx store.Tx) error { _, err := tx.Get(""); return err },
		"Get of a key too long":    func(tx store.Tx) error { _, err := tx.Get(longest + "k"); return err },
	} {
		if _, err := s.Update(t.Context(), try); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	c := collect(t, s, "largest", 0, 1)
	if !bytes.Equal(c[0].Changes[0].Value, largest) {
		t.Error("the largest value is not on the feed as it was put")
	}
	view(t, s, func(tx store.Tx) error {
		wantGet(t, tx, longest, "x")
		if v, err := tx.Get("largest"); err != nil || !bytes.Equal(v, largest) {
			t.Errorf("Get of the largest value: %d bytes, %v", len(v), err)
		}
		wantList(t, tx, longest+"k", "")
		return nil
	})
}

func testScan(t *testing.T, open Open) {
	s := fresh(t, open)
	put(t, s, "n/1", "a", "n/10", "b", "n/2", "c", "n0", "d", "n", "e", "n/\xff\xff", "f", "\x00", "g", "\xff", "h", "m/9", "i", "~n/1", "j")
	all := []string{"\x00=g", "m/9=i", "n=e", "n/1=a", "n/10=b", "n/2=c", "n/\xff\xff=f", "n0=d", "~n/1=j", "\xff=h"}
	check := func(tx store.Tx) error {
		wantList(t, tx, "", "", all...)
		wantList(t, tx, "n/", "", "n/1=a", "n/10=b", "n/2=c", "n/\xff\xff=f")
		wantList(t, tx, "n/1", "", "n/1=a", "n/10=b")
		wantList(t, tx, "n/\xff", "", "n/\xff\xff=f")
		wantList(t, tx, "\xff", "", "\xff=h")
		wantList(t, tx, "o", "")
		wantList(t, tx, "n/", "n/10", "n/10=b", "n/2=c", "n/\xff\xff=f")
		wantList(t, tx, "n/", "n/1\x00", "n/10=b", "n/2=c", "n/\xff\xff=f")
		wantList(t, tx, "n/", "a", "n/1=a", "n/10=b", "n/2=c", "n/\xff\xff=f")
		wantList(t, tx, "n/", "n0")
		wantList(t, tx, "", "n0", "n0=d", "~n/1=j", "\xff=h")
		return nil
	}
	view(t, s, check)
	update(t, s, check)
	view(t, s, func(tx store.Tx) error {
		for p, err := range tx.Scan("n", "") {
			if err != nil || p.Key != "n" {
				t.Errorf("first of a scan is %q, %v", p.Key, err)
			}
			break
		}
		return nil
	})
}

func testScanOwnWrites(t *testing.T, open Open) {
	s := fresh(t, open)
	put(t, s, "b", "old", "d", "old", "f", "old", "h", "old")
	update(t, s, func(tx store.Tx) error {
		for _, k := range []string{"a", "d", "e", "z"} {
			if err := tx.Put(k, []byte("new")); err != nil {
				return err
			}
		}
		if err := tx.Delete("f"); err != nil {
			return err
		}
		scan := tx.Scan("", "") // begins only with a loop over it
		if err := tx.Delete("z"); err != nil {
			return err
		}
		want := []string{"a=new", "b=old", "d=new", "e=new", "h=old"}
		var got []string
		for p, err := range scan {
			if err != nil {
				return err
			}
			got = append(got, p.Key+"="+string(p.Value))
			for _, err := range []error{
				tx.Put("h", []byte("later")), tx.Delete("e"), tx.Put("bb", nil), tx.Put("0", nil), tx.Put(p.Key+"x", nil), tx.Put(p.Key, []byte("seen")),
			} {
				if err != nil {
					return err
				}
			}
			wantGet(t, tx, p.Key, "seen")
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the scan gave %q, want %q", got, want)
		}
		wantList(t, tx, "e", "", "ex=")
		wantList(t, tx, "b", "ba", "bb=", "bx=")
		return nil
	})
	view(t, s, func(tx store.Tx) error {
		wantList(t, tx, "h", "", "h=seen", "hx=")
		return nil
	})
}

func testValuesOutlive(t *testing.T, open Open) {
	s := fresh(t, open)
	var got []byte
	var scanned store.Pair
	put(t, s, "k", "first")
	view(t, s, func(tx store.Tx) (err error) {
		got, err = tx.Get("k")
		for scanned = range tx.Scan("", "") {
			break
		}
		return err
	})
	for i := range 50 {
		put(t, s, "k", fmt.Sprint("value", i), fmt.Sprint("filler", i), strings.Repeat("x", 1000))
	}
	if string(got) != "first" || string(scanned.Value) != "first" || scanned.Key != "k" {
		t.Errorf("what was read became %q and %q", got, scanned)
	}
}

func testFailure(t *testing.T, open Open) {
	s := fresh(t, open)
	before := put(t, s, "a", "1", "b", "2")
	failure := errors.New("on purpose")
	_, err := s.Update(t.Context(), func(tx store.Tx) error {
		if err := errors.Join(tx.Put("a", []byte("x")), tx.Delete("b"), tx.Put("c", nil), tx.Put("~t", nil)); err != nil {
			return err
		}
		return failure
	})
	if err != failure {
		t.Errorf("Update gave %v and not fn's own error", err)
	}
	view(t, s, func(tx store.Tx) error {
		wantList(t, tx, "", "", "a=1", "b=2")
		return nil
	})
	if after := put(t, s, "d", "3"); after != before+1 {
		t.Errorf("revision %d follows %d", after, before)
	}
}

func testPanic(t *testing.T, open Open) {
	s := fresh(t, open)
	_, err := s.Update(t.Context(), func(tx store.Tx) error {
		if err := tx.Put("a", nil); err != nil {
			return err
		}
		panic("on purpose")
	})
	if err == nil || !strings.Contains(err.Error(), "on purpose") {
		t.Errorf("after a panic Update gave %v", err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		s.Update(t.Context(), func(tx store.Tx) error {
			if err := tx.Put("b", nil); err != nil {
				return err
			}
			runtime.Goexit() // as t.Fatal does
			return nil
		})
	}()
	<-gone
	put(t, s, "c", "1")
	view(t, s, func(tx store.Tx) error {
		wantList(t, tx, "", "", "c=1")
		return nil
	})
}

func testEndedContext(t *testing.T, open Open) {
	s := fresh(t, open)
	ctx, cancel := context.WithCancel(t.Context())
	inside, proceed := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		began := false
		_, err := s.Update(t.Context(), func(tx store.Tx) error {
			if !began {
				began = true
				close(inside)
			}
			<-proceed
			return tx.Put("a", []byte("1"))
		})
		first <- err
	}()
	<-inside
	cancel()
	ran := false
	fn := func(store.Tx) error { ran = true; return nil }
	if _, err := s.Update(ctx, fn); !errors.Is(err, context.Canceled) || ran {
		t.Errorf("Update with an ended context: %v, fn ran: %t", err, ran)
	}
	if err := s.View(ctx, fn); !errors.Is(err, context.Canceled) || ran {
		t.Errorf("View with an ended context: %v, fn ran: %t", err, ran)
	}
	close(proceed)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func testView(t *testing.T, open Open) {
	s := fresh(t, open)
	put(t, s, "a", "1")
	failure := errors.New("on purpose")
	var kept store.Tx
	err := s.View(t.Context(), func(tx store.Tx) error {
		kept = tx
		if err := tx.Put("a", nil); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("Put in a View: %v", err)
		}
		if err := tx.Delete("a"); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("Delete in a View: %v", err)
		}
		written := make(chan error)
		go func() {
			_, err := s.Update(t.Context(), func(tx store.Tx) error {
				return errors.Join(tx.Put("a", []byte("2")), tx.Put("b", nil))
			})
			written <- err
		}()
		if err := <-written; err != nil {
			t.Error(err)
		}
		wantList(t, tx, "", "", "a=1")
		wantGet(t, tx, "a", "1")
		return failure
	})
	if err != failure {
		t.Errorf("View gave %v and not fn's own error", err)
	}
	if _, err := kept.Get("a"); err == nil {
		t.Error("Get after the transaction's end: no error")
	}
	if _, err := list(kept, "", ""); err == nil {
		t.Error("Scan after the transaction's end: no error")
	}
}
