package library

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"muster/controller/api"
	"muster/images/chunk"
	"muster/shared/fault"
	"muster/shared/object"
)

// Health is what a check of the store found.
type Health struct {
	Bytes    int64    `json:"bytes"`    // that were read
	Damaged  int      `json:"damaged"`  // chunks that are not what they were
	Versions []string `json:"versions"` // those that are not whole, NAME:NUMBER, with the reason
}

// fsck reads the whole store and compares it with its digests. A damaged chunk
// is as good as absent afterwards: what is uploaded again puts it back.
func (l *Library) fsck(w http.ResponseWriter, r *http.Request) error {
	if !l.checking.TryLock() {
		return fault.New(fault.Conflict, "The store is being checked already.")
	}
	defer l.checking.Unlock()
	h, err := l.Check(r.Context())
	if err != nil {
		return err
	}
	l.opt.Log.Info("store checked", "bytes", h.Bytes, "damaged", h.Damaged, "versions", h.Versions)
	return api.Data(w, h)
}

// Check is fsck.
func (l *Library) Check(ctx context.Context) (Health, error) {
	h := Health{Versions: []string{}}
	damaged, err := l.opt.Blobs.chunks.Check(ctx, func(n int64) { h.Bytes += n })
	if err != nil {
		return h, err
	}
	for _, d := range damaged {
		l.opt.Blobs.chunks.Drop(d)
	}
	h.Damaged = len(damaged)
	for _, o := range l.opt.Objects.All(object.KindImage) {
		img := o.(*object.Image)
		for i := range img.Versions {
			v := &img.Versions[i]
			if ctx.Err() != nil {
				return h, ctx.Err()
			}
			if why := l.lacks(v.File); why != "" {
				h.Versions = append(h.Versions, fmt.Sprintf("%s:%d: %s", img.Name, v.Number, why))
			}
		}
	}
	slices.Sort(h.Versions)
	return h, nil
}

// lacks says what is not here of a version, "" when it is whole.
func (l *Library) lacks(f *object.File) string {
	missing, all := 0, 0
	err := l.opt.Blobs.markVersion(f, func(r chunk.Ref) {
		if all++; !l.opt.Blobs.chunks.Has(r.Digest) {
			missing++
		}
	})
	switch {
	case err != nil:
		return fmt.Sprintf("its index cannot be read (%v): import the same content again", err)
	case missing > 0:
		return fmt.Sprintf("%d of its %d chunks are missing or damaged: import the same content again, or roll back", missing, all)
	}
	return ""
}
