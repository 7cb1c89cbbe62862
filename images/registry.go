package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Registry is the form of what comes from a registry of container images.
const Registry Form = "registry"

const dockerScheme = "docker://"

// IsReference says whether a source is an image in a registry: docker:// and
// its name, or a name that begins with its host and is no file here.
func IsReference(source string) bool {
	if strings.HasPrefix(source, dockerScheme) {
		return true
	}
	host, rest, ok := strings.Cut(source, "/")
	if !ok || rest == "" || (host != "localhost" && !strings.Contains(strings.Trim(host, "."), ".") && !strings.Contains(host, ":")) {
		return false
	}
	if _, err := os.Lstat(source); err == nil {
		return false
	}
	_, err := name.ParseReference(source)
	return err == nil
}

// Resolve gives the digest of the image that a reference names now.
func Resolve(ctx context.Context, source string) (string, error) {
	r, err := newRemote(ctx, source, func(int64, int64) {})
	if err != nil {
		return "", err
	}
	defer r.close()
	image, err := r.image()
	if err != nil {
		return "", err
	}
	d, err := image.Digest()
	return d.String(), r.explain(err)
}

// Bounds on what a registry may give.
const (
	maxLayers     = 1000
	maxCompressed = 128 << 30 // bytes of all layers
)

// registry makes the image from one in a registry. Its layers are fetched as
// a whole, several at a time, since each is read twice.
func (j *job) registry(ctx context.Context) error {
	r, err := newRemote(ctx, j.source, func(done, total int64) { j.progress(min(done, total), 2*total) })
	if err != nil {
		return err
	}
	defer r.close()
	image, err := r.image()
	if err != nil {
		return err
	}
	manifest, err := image.Manifest()
	if err != nil {
		return r.explain(err)
	}
	if len(manifest.Layers) > maxLayers {
		return fmt.Errorf("%d layers are more than %d", len(manifest.Layers), maxLayers)
	}
	for _, l := range manifest.Layers {
		if l.Size < 0 || l.Size > maxCompressed || r.total > maxCompressed {
			return fmt.Errorf("its layers are larger than %d bytes", int64(maxCompressed))
		}
		r.total += l.Size
	}
	path, err := layout.Write(filepath.Join(j.work, "layout"), empty.Index)
	if err != nil {
		return err
	}
	if err := r.fetch(path, image); err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	desc, err := partial.Descriptor(image)
	if err != nil {
		return err
	}
	if err := path.AppendDescriptor(*desc); err != nil {
		return err
	}
	if image, err = path.Image(digest); err != nil {
		return err
	}
	half, report := r.total, j.progress
	j.progress = func(done, total int64) { // the second half of the way
		report(half+int64(float64(half)*float64(done)/float64(max(total, 1))), 2*half)
	}
	return j.flatten(ctx, image)
}

// remoteImage is an image in a registry, while it is read.
type remoteImage struct {
	ref    name.Reference
	ctx    context.Context
	cancel context.CancelCauseFunc
	watch  *time.Timer
	done   atomic.Int64
	total  int64
	report Progress
	busy   chan struct{} // held by who reports
}

// stalled is how long a registry may send nothing.
const stalled = 2 * time.Minute

func newRemote(ctx context.Context, source string, report Progress) (*remoteImage, error) {
	ref, err := name.ParseReference(strings.TrimPrefix(source, dockerScheme))
	if err != nil {
		return nil, err
	}
	r := &remoteImage{ref: ref, report: report, busy: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	r.watch = time.AfterFunc(stalled, func() {
		r.cancel(fmt.Errorf("the registry %s has sent nothing for %s", ref.Context().RegistryStr(), stalled))
	})
	return r, nil
}

func (r *remoteImage) close() {
	r.watch.Stop()
	r.cancel(nil)
}

// image looks the reference up, for this architecture.
func (r *remoteImage) image() (v1.Image, error) {
	image, err := remote.Image(r.ref, remote.WithContext(r.ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(r),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}), remote.WithJobs(4))
	return image, r.explain(err)
}

// tries is how often a transfer that breaks off is begun; what has come as a
// whole is kept.
const tries = 3

func (r *remoteImage) fetch(path layout.Path, image v1.Image) (err error) {
	for range tries {
		if err = path.WriteImage(image); err == nil || r.ctx.Err() != nil {
			break
		}
		if status := new(transport.Error); errors.As(err, &status) && status.StatusCode < 500 {
			break
		}
	}
	return r.explain(err)
}

// explain says what to do about an error of the registry.
func (r *remoteImage) explain(err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(r.ctx); cause != nil {
		return cause
	}
	host := r.ref.Context().RegistryStr()
	status := new(transport.Error)
	if !errors.As(err, &status) {
		return err
	}
	switch status.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("the registry %s does not give it to you: log in there with docker or podman login, or check ~/.docker/config.json: %w", host, err)
	case http.StatusNotFound:
		return fmt.Errorf("the registry %s has no %s: %w", host, r.ref.Name(), err)
	}
	return err
}

// RoundTrip counts what a registry sends.
func (r *remoteImage) RoundTrip(q *http.Request) (*http.Response, error) {
	resp, err := remote.DefaultTransport.RoundTrip(q)
	if err == nil {
		resp.Body = &meter{resp.Body, r}
	}
	return resp, err
}

type meter struct {
	io.ReadCloser
	of *remoteImage
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.ReadCloser.Read(b)
	r := m.of
	done := r.done.Add(int64(n))
	if n > 0 {
		r.watch.Reset(stalled)
	}
	select {
	case r.busy <- struct{}{}:
		if r.total > 0 && done == r.done.Load() { // no other has come further
			r.report(done, r.total)
		}
		<-r.busy
	default:
	}
	return n, err
}
