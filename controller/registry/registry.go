// Package registry is the one way to read and write objects.
//
// A write runs in one store transaction in a fixed order: defaults, formats,
// references, the kind's Prepare and Check, unique keys, store, the kind's
// After. What was committed comes back on the store's change feed, and from
// there into the view in memory that serves every read; a write returns when
// the view has it. Who may do what is decided before, by the route's
// permission, but for the parts of an object that take one of their own, see
// kind.Spec.Guard. Telemetry does not pass through here, see controller/fleet.
package registry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"muster/controller/store"
	"muster/shared/fault"
	"muster/shared/kind"
)

// Options are what the registry has to be told.
type Options struct {
	Head  string           // host name, for last_modified_on
	UID   string           // of this head
	Now   func() time.Time // the clock
	Log   *slog.Logger
	Taken func(addr string) bool // addresses that no node may get, such as the head's own
	// Live gives what a node last reported and its state, as JSON objects.
	Live func(uid string) (hardware, status []byte)
	// AuditRecords and AuditAge bound the audit trail; 0 for the defaults. A
	// twentieth more may be there for a while.
	AuditRecords int
	AuditAge     time.Duration
}

// Registry serves objects. Its methods may be called by many at once.
type Registry struct {
	store store.Store
	specs []*kind.Spec
	kinds map[string]*kind.Spec
	view  *view
	trail *trail
	opt   Options
}

// Open reads everything that the store holds. Run must be called for writes to
// return.
func Open(ctx context.Context, st store.Store, specs []*kind.Spec, opt Options) (*Registry, error) {
	r := &Registry{store: st, specs: specs, kinds: map[string]*kind.Spec{}, trail: newTrail(opt.AuditRecords, opt.AuditAge), opt: opt}
	for _, s := range specs {
		r.kinds[s.Name] = s
	}
	r.view = newView(r.kinds, opt.Live)
	// Nothing else writes yet, so that this revision is the one that View sees.
	revision := st.Revision()
	err := st.View(ctx, func(tx store.Tx) error { return r.view.load(tx, revision) })
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Run keeps the view up to date until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	defer r.view.stop()
	var trimming sync.WaitGroup
	trimming.Go(func() { r.trim(ctx) })
	defer trimming.Wait()
	for commit, err := range r.store.Watch(ctx, objectPrefix, r.view.revision()) {
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
				return nil
			}
			return err
		}
		if err := r.view.apply(commit); err != nil {
			return err
		}
	}
	return nil
}

// Specs gives all kinds in declared order.
func (r *Registry) Specs() []*kind.Spec { return r.specs }

// Look reads the view, for features that want typed objects. What it gives
// must not be changed.
func (r *Registry) Look() kind.Look { return r.view }

// Find gives the stored object that an identifier names: its UID, or one of
// the kind's names.
func (r *Registry) Find(kindName, id string) (kind.Object, error) {
	spec := r.kinds[kindName]
	if obj, ok := r.view.find(spec, id); ok {
		return obj, nil
	}
	return nil, NotFound(spec, id)
}

// NotFound is the published answer for an identifier that names nothing.
func NotFound(spec *kind.Spec, id string) error {
	return fault.New(fault.NotFound, "No %s found for ID=%s", spec.Name, id)
}

// All gives every stored object of a kind, ordered by UID.
func (r *Registry) All(kindName string) []kind.Object { return r.view.all(kindName) }

// Show gives an object as users see it: with what is computed, and with names
// where it refers to others.
func (r *Registry) Show(kindName string, obj kind.Object) kind.Object {
	return r.show(r.view, r.kinds[kindName], obj)
}

func (r *Registry) show(look kind.Look, spec *kind.Spec, obj kind.Object) kind.Object {
	out := clone(obj)
	if spec.Show != nil {
		out = spec.Show(look, obj)
	}
	for i := range spec.Fields {
		f := &spec.Fields[i]
		if f.Ref == "" || f.Format.Name == kind.References.Name {
			continue
		}
		for _, uid := range spec.Refs(out, f) {
			ref := r.kinds[f.Ref]
			if to, ok := look.Get(f.Ref, uid); ok && len(ref.Names) > 0 {
				if name := ref.Text(to, ref.Names[0]); name != "" {
					spec.SetRefs(out, f, []string{name})
				}
			}
		}
	}
	return out
}

// clone is a shallow copy: enough to set fields, not to change what they hold.
func clone(obj kind.Object) kind.Object {
	v := reflect.New(reflect.TypeOf(obj).Elem())
	v.Elem().Set(reflect.ValueOf(obj).Elem())
	return v.Interface().(kind.Object)
}

// newUID makes the published form of a UID: 32 lower-case letters and digits.
func newUID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
