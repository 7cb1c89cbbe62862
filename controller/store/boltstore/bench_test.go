package boltstore_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"muster/controller/store"
	"muster/controller/store/boltstore"
)

// BenchmarkUpdate64 is 64 callers that each wait for their own durable write.
func BenchmarkUpdate64(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "db"), boltstore.Options{})
	defer s.Close()
	value := make([]byte, 200)
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for i := range 64 {
		wg.Go(func() {
			for n := left.Add(-1); n >= 0; n = left.Add(-1) {
				if _, err := put(s, fmt.Sprintf("node/%d/%d", i, n%500), value); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

// BenchmarkUpdate1 is a single caller: the time of one commit.
func BenchmarkUpdate1(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "db"), boltstore.Options{})
	defer s.Close()
	for b.Loop() {
		if _, err := put(s, "node/1", make([]byte, 200)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScan reads 50,000 objects as a head does when it starts.
func BenchmarkScan(b *testing.B) {
	const keys = 50_000
	s := open(b, filepath.Join(b.TempDir(), "db"), boltstore.Options{})
	defer s.Close()
	_, err := s.Update(b.Context(), func(tx store.Tx) error {
		for i := range keys {
			if err := tx.Put(fmt.Sprintf("node/%06d", i), make([]byte, 1000)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		n := 0
		err := s.View(b.Context(), func(tx store.Tx) error {
			for _, err := range tx.Scan("", "") {
				if err != nil {
					return err
				}
				n++
			}
			return nil
		})
		if err != nil || n != keys {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*keys), "ns/key")
}
