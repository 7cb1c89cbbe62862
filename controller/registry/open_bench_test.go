package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/controller/registry"
	"muster/controller/store/boltstore"
	"muster/shared/kind"
	"muster/shared/object"
)

// BenchmarkOpen reads what a head with 10,000 nodes holds, which is most of its
// start.
func BenchmarkOpen(b *testing.B) {
	const nodes = 10_000
	st, err := boltstore.Open(filepath.Join(b.TempDir(), "db"), boltstore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	open := func() *registry.Registry {
		r, err := registry.Open(b.Context(), st, object.All(), registry.Options{Head: "h", Now: time.Now})
		if err != nil {
			b.Fatal(err)
		}
		return r
	}
	fill(b, open(), nodes)
	for b.Loop() {
		if n := len(open().All(object.KindNode)); n != nodes {
			b.Fatalf("%d nodes", n)
		}
	}
}

// fill makes nodes, as many at once as share a commit well.
func fill(b *testing.B, r *registry.Registry, nodes int) {
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	create := func(kindName, doc string) {
		var in registry.Input
		if err := json.Unmarshal([]byte(doc), &in); err != nil {
			b.Error(err)
		} else if _, err := r.Create(ctx, kind.Author{Name: "muster"}, kindName, in); err != nil {
			b.Error(err)
		}
	}
	create("net", `{"first_ip":"10.0.0.1","ip_count":60000,"mask_bits":16}`)
	var next atomic.Int64
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(nodes) && !b.Failed(); i = next.Add(1) {
				create("node", fmt.Sprintf(`{"mac":"52:54:00:%02x:%02x:%02x","attributes":{"rack":"r%d"}}`, i>>16, i>>8&255, i&255, i/40))
			}
		})
	}
	all.Wait()
}
