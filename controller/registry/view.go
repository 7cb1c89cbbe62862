package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"

	"muster/controller/store"
	"muster/shared/fault"
	"muster/shared/kind"
)

// view holds every object decoded, with an index for each unique key. Objects
// in it are never changed, only replaced.
type view struct {
	specs map[string]*kind.Spec
	live  func(uid string) (hardware, status []byte)
	cache cache

	deleted tombs // guarded by mu
	mu      sync.RWMutex
	class   map[string]*class
	at      uint64        // revision of the newest commit seen
	moved   chan struct{} // closed and replaced when at moves
	stopped bool
}

// class holds the objects of one kind.
type class struct {
	byUID  map[string]kind.Object
	byKey  map[string]map[string]kind.Object // key name → value → object
	oldest kind.Object
	// version counts the commits' changes to the kind.
	version atomic.Uint64
}

func newView(specs map[string]*kind.Spec, live func(string) ([]byte, []byte)) *view {
	v := &view{specs: specs, live: live, class: map[string]*class{}, moved: make(chan struct{})}
	for name := range specs {
		v.class[name] = &class{byUID: map[string]kind.Object{}, byKey: map[string]map[string]kind.Object{}}
	}
	return v
}

// loaded is an object read from the store, with what is indexed of it.
type loaded struct {
	spec *kind.Spec
	obj  kind.Object
	keys map[string]string
}

// loadBatch is how many objects are decoded in one go.
const loadBatch = 256

// load reads all objects. Decoding is most of the work of a head's start, so
// that all cores share it, beginning while the store is still being read.
func (v *view) load(tx store.Tx, revision uint64) error {
	var batches []*[]loaded
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0) + 1)
	var pairs []store.Pair
	decode := func() {
		part, out := pairs, &[]loaded{}
		pairs, batches = nil, append(batches, out)
		group.Go(func() error {
			for _, p := range part {
				spec, obj, err := v.decode(p.Key, p.Value)
				if err != nil {
					return err
				}
				if obj != nil {
					*out = append(*out, loaded{spec, obj, uniqueKeys(spec, obj)})
				}
			}
			return nil
		})
	}
	for pair, err := range tx.Scan(objectPrefix, "") {
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		if pairs = append(pairs, pair); len(pairs) == loadBatch {
			decode()
		}
	}
	decode()
	if err := group.Wait(); err != nil {
		return err
	}
	count := map[*kind.Spec]int{}
	for _, batch := range batches {
		for _, l := range *batch {
			count[l.spec]++
		}
	}
	for spec, n := range count {
		v.class[spec.Name].reserve(spec, n)
	}
	for _, batch := range batches {
		for _, l := range *batch {
			v.class[l.spec.Name].insert(l.obj, l.keys)
		}
	}
	v.at = revision
	return nil
}

// spec gives the kind and the UID that a key names; nil for a kind of a newer
// version, which is kept in the store and not shown.
func (v *view) spec(key string) (*kind.Spec, string) {
	name, uid, _ := strings.Cut(strings.TrimPrefix(key, objectPrefix), "/")
	return v.specs[name], uid
}

// decode gives a stored object, nil for a deleted one.
func (v *view) decode(key string, value []byte) (*kind.Spec, kind.Object, error) {
	spec, uid := v.spec(key)
	if spec == nil || value == nil {
		return spec, nil, nil
	}
	obj := spec.New()
	if err := json.Unmarshal(value, obj); err != nil {
		return spec, nil, fmt.Errorf("stored %s %s cannot be read: %w", spec.Name, uid, err)
	}
	return spec, obj, nil
}

// apply brings the view to a commit and wakes those who wait for it.
func (v *view) apply(c store.Commit) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, change := range c.Changes {
		if err := v.put(change.Key, change.Value); err != nil {
			return err
		}
	}
	v.at = c.Revision
	close(v.moved)
	v.moved = make(chan struct{})
	return nil
}

func (v *view) put(key string, value []byte) error {
	spec, obj, err := v.decode(key, value)
	if spec == nil || err != nil {
		return err
	}
	_, uid := v.spec(key)
	c := v.class[spec.Name]
	c.version.Add(1)
	if old, ok := c.byUID[uid]; ok {
		c.remove(spec, old)
		if obj == nil && len(spec.Names) > 0 {
			v.deleted.add(uid, spec.Text(old, spec.Names[0]))
		}
	}
	if obj == nil {
		v.cache.drop(uid)
		return nil
	}
	c.add(spec, obj)
	return nil
}

// reserve makes the maps of an empty class as large as they will be.
func (c *class) reserve(spec *kind.Spec, n int) {
	c.byUID = make(map[string]kind.Object, n)
	for _, f := range spec.Fields {
		if f.Unique && f.Per == "" {
			c.byKey[f.Path] = make(map[string]kind.Object, n)
		}
	}
}

func (c *class) add(spec *kind.Spec, obj kind.Object) { c.insert(obj, uniqueKeys(spec, obj)) }

func (c *class) insert(obj kind.Object, keys map[string]string) {
	c.byUID[obj.Base().UID] = obj
	for key, value := range keys {
		if c.byKey[key] == nil {
			c.byKey[key] = map[string]kind.Object{}
		}
		c.byKey[key][value] = obj
	}
	if c.oldest == nil || older(obj, c.oldest) < 0 {
		c.oldest = obj
	}
}

func (c *class) remove(spec *kind.Spec, obj kind.Object) {
	delete(c.byUID, obj.Base().UID)
	for key, value := range uniqueKeys(spec, obj) {
		// In one commit another object may have taken the value already.
		if c.byKey[key][value] == obj {
			delete(c.byKey[key], value)
		}
	}
	if c.oldest == obj {
		c.oldest = nil
		for _, o := range c.byUID {
			if c.oldest == nil || older(o, c.oldest) < 0 {
				c.oldest = o
			}
		}
	}
}

func older(a, b kind.Object) int {
	x, y := a.Base(), b.Base()
	return cmp.Or(cmp.Compare(x.Created, y.Created), cmp.Compare(x.UID, y.UID))
}

func (v *view) revision() uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.at
}

// wait returns when the view has the revision.
func (v *view) wait(ctx context.Context, revision uint64) error {
	for {
		v.mu.RLock()
		at, moved, stopped := v.at, v.moved, v.stopped
		v.mu.RUnlock()
		if at >= revision {
			return nil
		}
		if stopped {
			return fault.New(fault.Unavailable, "The change is stored, but the head is shutting down.")
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (v *view) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stopped = true
	close(v.moved)
	v.moved = make(chan struct{})
}

// Get implements kind.Look.
func (v *view) Get(kindName, uid string) (kind.Object, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	obj, ok := v.class[kindName].byUID[uid]
	return obj, ok
}

// Find implements kind.Look: by one of the unique keys.
func (v *view) Find(kindName, key, value string) (kind.Object, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	obj, ok := v.class[kindName].byKey[key][value]
	return obj, ok
}

// Oldest implements kind.Look.
func (v *view) Oldest(kindName string) (kind.Object, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	o := v.class[kindName].oldest
	return o, o != nil
}

// Live implements kind.Look.
func (v *view) Live(uid string) (hardware, status []byte) {
	if v.live == nil {
		return nil, nil
	}
	return v.live(uid)
}

// find resolves an identifier: UID first, then the kind's names in order. Of
// several objects with one name it is the oldest, so that what a name gives to
// readers does not change when another object gets it too.
func (v *view) find(spec *kind.Spec, id string) (kind.Object, bool) {
	if obj, ok := v.Get(spec.Name, id); ok {
		return obj, true
	}
	for _, name := range spec.Names {
		value, ok := canonical(spec, name, id)
		if !ok {
			continue
		}
		f, _ := spec.Field(name)
		var oldest kind.Object
		for _, key := range spec.UniqueKeys(f) {
			if obj, ok := v.Find(spec.Name, key, value); ok && (oldest == nil || older(obj, oldest) < 0) {
				oldest = obj
			}
		}
		if oldest != nil {
			return oldest, true
		}
	}
	if spec.Singleton {
		return v.Oldest(spec.Name)
	}
	return nil, false
}

func (v *view) all(kindName string) []kind.Object {
	v.mu.RLock()
	out := make([]kind.Object, 0, len(v.class[kindName].byUID))
	for _, o := range v.class[kindName].byUID {
		out = append(out, o)
	}
	v.mu.RUnlock()
	slices.SortFunc(out, func(a, b kind.Object) int { return cmp.Compare(a.Base().UID, b.Base().UID) })
	return out
}

// tombs remembers the names of objects that were deleted lately.
type tombs struct {
	names map[string]string
	order []string // UIDs, oldest first
}

const maxTombs = 10_000

func (t *tombs) add(uid, name string) {
	if t.names == nil {
		t.names = map[string]string{}
	}
	t.names[uid] = name
	if t.order = append(t.order, uid); len(t.order) > maxTombs {
		delete(t.names, t.order[0])
		t.order = t.order[1:]
	}
}

func (v *view) nameOfDeleted(uid string) string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.deleted.names[uid]
}
