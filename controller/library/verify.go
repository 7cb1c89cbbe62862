package library

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"muster/shared/object"
)

// verifier reads stored files whole and compares them with their digests. What
// was right and has not been written since is not read again.
type verifier struct {
	blobs *Blobs
	mu    sync.Mutex        // one at a time: the disk is busy enough with nodes
	right map[string]string // by SHA-256, the stamp of what was read
}

// check says why a file's content is not what was uploaded, "" when it is. A
// file that is missing or has another length is not its concern.
func (v *verifier) check(ctx context.Context, f *object.File) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	file, err := v.blobs.OpenContent(f)
	var damaged *errDamaged
	if errors.As(err, &damaged) {
		return damaged.reason, nil
	}
	if err != nil {
		return "", nil
	}
	defer file.Close()
	stamp, ok := stampOf(file, f.Size)
	if !ok || v.right[f.SHA256] == stamp {
		return "", nil
	}
	sum, err := digest(ctx, file)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return fmt.Sprintf("its file in this head's store cannot be read: %v", err), nil
	case sum != f.SHA256:
		return "its file in this head's store is damaged: it has other bytes than were uploaded", nil
	}
	if len(v.right) >= maxRemembered {
		clear(v.right)
	}
	v.right[f.SHA256] = stamp
	return "", nil
}

const maxRemembered = 10_000

// stampOf changes when what a content is read from is written to. It is not ok
// for a file of another size than it should have.
func stampOf(c content, size int64) (stamp string, ok bool) {
	files := map[*os.File]bool{}
	switch c := c.(type) {
	case *os.File:
		if info, err := c.Stat(); err != nil || info.Size() != size {
			return "", false
		}
		files[c] = true
	case *assembled:
		for _, p := range c.pieces {
			if p.file != nil {
				files[p.file] = true
			}
		}
	}
	var all []string
	for f := range files {
		if info, err := f.Stat(); err == nil {
			all = append(all, fmt.Sprint(f.Name(), info.Size(), info.ModTime().UnixNano()))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " "), true
}

func digest(ctx context.Context, file io.Reader) (string, error) {
	sum := sha256.New()
	for ctx.Err() == nil {
		_, err := io.CopyN(sum, file, 64<<20)
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// damage says which files of a boot configuration have lost their content.
func (l *Library) damage(ctx context.Context, bc *object.Bootconfig) ([]string, error) {
	files := map[string]*object.File{"kernel": bc.Kernel, "initramfs": bc.Initramfs}
	switch bc.Style() {
	case object.StyleNext, object.StyleSanboot:
		return nil, nil
	case object.StyleLive:
		if r, ok := l.isoOf(bc); ok {
			files["ISO of the repo "+r.Name] = r.ISO
		}
	}
	if o, ok := l.opt.Objects.Look().Get(object.KindImage, bc.Image); ok && bc.BootsImage() {
		img := o.(*object.Image)
		if v, err := img.VersionOf(bc.ImageVersion); err == nil {
			files["image "+img.Name] = v.File
		}
	}
	var out []string
	for what, f := range files {
		if f == nil {
			continue
		}
		problem, err := l.verify.check(ctx, f)
		if err != nil {
			return nil, err
		}
		if problem != "" {
			out = append(out, what+": "+problem+": upload it again")
		}
	}
	return out, nil
}
