package images

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/klauspost/compress/gzip"
)

// site is a registry with what is wrong with it.
type site struct {
	http.Handler
	user, pass string
	damaged    atomic.Bool  // large blobs are
	broken     atomic.Int32 // how many of those are cut off first
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, pass, _ := r.BasicAuth(); s.user != "" && (user != s.user || pass != s.pass) {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || (!s.damaged.Load() && s.broken.Load() <= 0) {
		s.Handler.ServeHTTP(w, r)
		return
	}
	rec := httptest.NewRecorder()
	s.Handler.ServeHTTP(rec, r)
	body := rec.Body.Bytes()
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	switch {
	case len(body) < 2000: // configurations
	case s.broken.Add(-1) >= 0:
		body = body[:len(body)/2]
	case s.damaged.Load():
		body = bytes.Clone(body)
		body[len(body)/2] ^= 1
	}
	w.Write(body)
}

// registryOf serves images under the name r, and gives its host.
func registryOf(t *testing.T, s *site, image v1.Image) string {
	t.Helper()
	s.Handler = registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	plain := httptest.NewServer(s.Handler)
	defer plain.Close()
	ref, err := name.ParseReference(strings.TrimPrefix(plain.URL, "http://") + "/root:1")
	if err == nil {
		err = remote.Write(ref, image)
	}
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestImportRegistry(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	noise := make([]byte, 20_000)
	for i := range noise {
		noise[i] = byte(i * i >> 3)
	}
	image := containerImage(t, gnuTar(t, rootTree(t)),
		tarOf(t, dir("d"), file("d/perl", string(noise)), link("d/perl5", "d/perl"), file("d/old", "x")),
		tarOf(t, file("d/perl", "new"), file("d/.wh.old", ""), link("su6", "usr/bin/su")))
	s := &site{}
	host := registryOf(t, s, image)
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{"docker://" + host + "/root:1", host + "/root:1", "docker://" + host + "/root@" + digest.String()} {
		if got, err := Resolve(t.Context(), source); err != nil || got != digest.String() {
			t.Errorf("%s is %s, %v", source, got, err)
		}
	}
	out := imported(t, "docker://"+host+"/root:1", Registry)
	survived(t, out)
	got := extract(t, out)
	for name, want := range map[string]string{"d/perl": "new", "d/perl5": string(noise)} {
		if raw, err := os.ReadFile(filepath.Join(got, name)); err != nil || string(raw) != want {
			t.Errorf("%s: %d bytes, %v", name, len(raw), err)
		}
	}
	a, _ := os.Stat(filepath.Join(got, "su6"))
	b, _ := os.Stat(filepath.Join(got, "usr/bin/su"))
	if _, err := os.Stat(filepath.Join(got, "d/old")); err == nil || !os.SameFile(a, b) {
		t.Error("a whiteout or a hard link of another layer was not heeded")
	}

	// Transfers that break off are begun again; what is damaged is refused.
	s.broken.Store(2)
	imported(t, host+"/root:1", Registry)
	s.damaged.Store(true)
	refusedFrom(t, host+"/root:1", "verifying")
	s.damaged.Store(false)

	s.user, s.pass = "me", "secret"
	refusedFrom(t, host+"/root:1", "log in there with docker")
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("me:secret")))
	if err := os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	imported(t, host+"/root:1", Registry)
	refusedFrom(t, host+"/root:2", "has no "+host+"/root:2")
	refusedFrom(t, "docker://127.0.0.1:1/x", "refused")
	refusedFrom(t, "docker://UPPER/x y", "could not parse reference")
}

func refusedFrom(t *testing.T, source, want string) {
	t.Helper()
	dir := t.TempDir()
	_, err := Import(t.Context(), source, filepath.Join(dir, "out"), nil)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", source, err, want)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%s left %v", source, left)
	}
}

// bomb is a layer whose few bytes unpack to many.
type bomb struct {
	v1.Layer
	size int64
}

func (b bomb) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(io.LimitReader(zeros{}, b.size)), nil
}
func (b bomb) Size() (int64, error) { return 1000, nil }

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestLayersAreBoundedAndVerified(t *testing.T) {
	left := int64(maxUnpacked)
	for size, want := range map[int64]string{freeRatio / 64: "is damaged", freeRatio + 1000*maxRatio + 1: "bomb"} {
		r, err := openLayer(bomb{size: size}, &left, &v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)})
		if err != nil {
			t.Fatal(err)
		}
		if want == "bomb" { // the rest of the way is the same
			r.(*layerReader).own, r.(*layerReader).sum = 1<<20, nil
		}
		if _, err := io.Copy(io.Discard, r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: %v, want %q", size, err, want)
		}
	}
	left = 1 << 20
	r, err := openLayer(bomb{size: 2 << 20}, &left, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err == nil || !strings.Contains(err.Error(), "bomb") {
		t.Errorf("more than all layers may: %v", err)
	}

	// A layout whose layer was replaced by another that unpacks as well.
	image := containerImage(t, tarOf(t, file("a", "x")))
	path := ociLayout(t, image)
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	var other bytes.Buffer
	w := gzip.NewWriter(&other)
	w.Write(tarOf(t, file("a", "y")))
	w.Close()
	if err := os.WriteFile(filepath.Join(path, "blobs/sha256", digest.Hex), other.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	refusedFrom(t, path, "the layer is damaged")

	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.RootFS.DiffIDs = nil
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	if _, err := unpackedDigests(image, 1); err == nil {
		t.Error("a configuration without the layers was taken")
	}
}

func TestIsReference(t *testing.T) {
	for source, want := range map[string]bool{
		"docker://debian": true, "ghcr.io/a/b": true, "localhost/x": true, "host:5000/x:1": true, "a/b": false, "./a": false, "../x.tar": false,
		"nowhere": false, "/abs/path": false, "dir.d/": false, "": false,
	} {
		if got := IsReference(source); got != want {
			t.Errorf("%q: %v", source, got)
		}
	}
}
