package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// IsLayout says whether a directory is an OCI image layout (its image-layout.md).
func IsLayout(dir string) bool {
	for _, name := range []string{"oci-layout", "index.json"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || !st.Mode().IsRegular() {
			return false
		}
	}
	return true
}

// layout makes the image from an OCI layout directory.
func (j *job) layout(ctx context.Context) error {
	index, err := layout.ImageIndexFromPath(j.source)
	if err != nil {
		return err
	}
	found, err := candidates(index, 0)
	if err != nil {
		return err
	}
	switch len(found) {
	case 0:
		return fmt.Errorf("the layout has no image for linux/%s", runtime.GOARCH)
	case 1:
		return j.flatten(ctx, found[0])
	}
	return fmt.Errorf("the layout has %d images for linux/%s; give one with a single image", len(found), runtime.GOARCH)
}

// candidates gives the images of an index, and of those below it, that are
// for this architecture or for none in particular.
func candidates(index v1.ImageIndex, depth int) ([]v1.Image, error) {
	if depth > 3 {
		return nil, errors.New("its indices are nested more than three deep")
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var found []v1.Image
	for _, d := range m.Manifests {
		if d.Platform != nil && (d.Platform.OS != "linux" || d.Platform.Architecture != runtime.GOARCH) {
			continue
		}
		switch {
		case d.MediaType.IsIndex():
			below, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			more, err := candidates(below, depth+1)
			if err != nil {
				return nil, err
			}
			found = append(found, more...)
		case d.MediaType.IsImage():
			image, err := index.Image(d.Digest)
			if err != nil {
				return nil, err
			}
			found = append(found, image)
		}
	}
	return found, nil
}

// docker makes the image from what `docker save` wrote.
func (j *job) docker(ctx context.Context, a *archive) error {
	opener := func() (io.ReadCloser, error) { return os.Open(j.source) }
	if a.compression != "" {
		// Each layer is looked for from the beginning, which would
		// decompress the whole archive each time.
		plain := filepath.Join(j.work, "archive")
		if err := a.unpack(ctx, plain, func(done, total int64) { j.progress(done, 2*total) }); err != nil {
			return err
		}
		report := j.progress
		j.progress = func(done, total int64) { // the second half of the way
			report(a.size+int64(float64(a.size)*float64(done)/float64(total)), 2*a.size)
		}
		opener = func() (io.ReadCloser, error) { return os.Open(plain) }
	}
	image, err := tarball.Image(opener, nil)
	if err != nil {
		return fmt.Errorf("a container image, but not as `docker save IMAGE` writes it (of an OCI archive, unpack it and import the directory): %w", err)
	}
	return j.flatten(ctx, image)
}

// unpack decompresses the archive into a file.
func (a *archive) unpack(ctx context.Context, name string, progress Progress) error {
	r, err := a.open(ctx, progress)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
