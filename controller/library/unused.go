package library

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
)

// Unused is a file in the head's store that nothing uses any more.
type Unused struct {
	UID    string  `json:"uid"`
	SHA256 string  `json:"sha256"`
	Size   int64   `json:"size"`  // bytes
	MTime  float64 `json:"mtime"` // when it was uploaded, in seconds since 1970
}

// Unused lists the files whose count of references is zero, oldest first, and
// removes them if it is told to. A file that an upload is about to name counts
// as used.
func (l *Library) Unused(ctx context.Context, remove bool) ([]Unused, error) {
	return l.opt.Blobs.unused(ctx, l.used, remove)
}

// batch is how many files are looked at with the lock held.
const batch = 64

func (b *Blobs) unused(ctx context.Context, used func() map[string]bool, remove bool) ([]Unused, error) {
	files, err := filepath.Glob(filepath.Join(b.dir, "??", "*"))
	if err != nil {
		return nil, err
	}
	out := []Unused{}
	for part := range slices.Chunk(files, batch) {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		got, err := b.unusedOf(part, used, remove)
		if out = append(out, got...); err != nil {
			return out, err
		}
	}
	slices.SortFunc(out, func(a, b Unused) int { return cmp.Compare(a.MTime, b.MTime) })
	return out, nil
}

// unusedOf looks with the lock held, and so at what is used: an upload keeps
// its file until reads of the objects show that they name it, so that no
// moment lies between.
func (b *Blobs) unusedOf(files []string, used func() map[string]bool, remove bool) ([]Unused, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Unused
	inUse := used()
	for _, path := range files {
		digest := filepath.Base(path)
		info, err := os.Stat(path)
		if err != nil || !digestForm.MatchString(digest) || inUse[digest] || b.kept[digest] > 0 {
			continue
		}
		if remove {
			if err := os.Remove(path); err != nil {
				return out, err
			}
		}
		out = append(out, Unused{digest[:32], digest, info.Size(), float64(info.ModTime().UnixMicro()) / 1e6})
	}
	return out, nil
}
