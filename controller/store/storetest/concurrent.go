package storetest

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"muster/controller/store"
)

// each runs fn n times at once and waits.
func each(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

func number(tx store.Tx, key string) (int, error) {
	v, err := tx.Get(key)
	if err != nil || v == nil {
		return 0, err
	}
	return strconv.Atoi(string(v))
}

func setNumber(tx store.Tx, key string, n int) error {
	return tx.Put(key, []byte(strconv.Itoa(n)))
}

// testCounter increments one counter from many sides; every second attempt
// writes too and then fails, which must disturb nobody.
func testCounter(t *testing.T, open Open) {
	const callers, rounds = 64, 10
	s := fresh(t, open)
	failure := errors.New("on purpose")
	var mu sync.Mutex
	seen := map[uint64]bool{}
	each(callers, func(int) {
		for round := range 2 * rounds {
			revision, err := s.Update(t.Context(), func(tx store.Tx) error {
				n, err := number(tx, "counter")
				if err != nil {
					return err
				}
				if err := setNumber(tx, "counter", n+1); err != nil {
					return err
				}
				if round%2 == 1 {
					return failure
				}
				return nil
			})
			if round%2 == 1 && err != failure || round%2 == 0 && err != nil {
				t.Errorf("Update: %v", err)
				return
			}
			if err == nil {
				mu.Lock()
				if seen[revision] {
					t.Errorf("revision %d was given twice", revision)
				}
				seen[revision] = true
				mu.Unlock()
			}
		}
	})
	view(t, s, func(tx store.Tx) error {
		wantGet(t, tx, "counter", strconv.Itoa(callers*rounds))
		return nil
	})
	if s.Revision() != callers*rounds {
		t.Errorf("revision %d after %d commits", s.Revision(), callers*rounds)
	}
}

// testUniqueIndices gives out the lowest free index, found by a scan: two
// callers get the same one if what a scan did not find can appear later.
func testUniqueIndices(t *testing.T, open Open) {
	const callers, rounds = 32, 10
	s := fresh(t, open)
	each(callers, func(i int) {
		for round := range rounds {
			_, err := s.Update(t.Context(), func(tx store.Tx) error {
				free := 1
				for p, err := range tx.Scan("index/", "") {
					if err != nil {
						return err
					}
					if p.Key != fmt.Sprintf("index/%06d", free) {
						break
					}
					free++
				}
				return tx.Put(fmt.Sprintf("index/%06d", free), fmt.Appendf(nil, "%d.%d", i, round))
			})
			if err != nil {
				t.Errorf("Update: %v", err)
				return
			}
		}
	})
	view(t, s, func(tx store.Tx) error {
		owners := map[string]bool{}
		for p, err := range tx.Scan("index/", "") {
			if err != nil {
				return err
			}
			owners[string(p.Value)] = true
		}
		if len(owners) != callers*rounds {
			t.Errorf("%d callers have an index of their own, want %d", len(owners), callers*rounds)
		}
		return nil
	})
}

// testConsistentViews moves amounts between two accounts; no transaction may
// ever see another total.
func testConsistentViews(t *testing.T, open Open) {
	s := fresh(t, open)
	put(t, s, "left", "1000", "right", "0")
	total := func(tx store.Tx) error {
		left, err := number(tx, "left")
		if err != nil {
			return err
		}
		right, err := number(tx, "right")
		if err == nil && left+right != 1000 {
			err = fmt.Errorf("%d on the left and %d on the right", left, right)
		}
		return err
	}
	each(16, func(i int) {
		for range 20 {
			var err error
			if i%2 == 0 {
				err = s.View(t.Context(), total)
			} else {
				_, err = s.Update(t.Context(), func(tx store.Tx) error {
					left, err := number(tx, "left")
					if err != nil {
						return err
					}
					if err := setNumber(tx, "left", left-i); err != nil {
						return err
					}
					right, err := number(tx, "right")
					if err != nil {
						return err
					}
					if err := setNumber(tx, "right", right+i); err != nil {
						return err
					}
					return total(tx)
				})
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
}
