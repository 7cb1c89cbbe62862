package images

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func containerImage(t testing.TB, layers ...[]byte) v1.Image {
	t.Helper()
	image := empty.Image
	for _, b := range layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			t.Fatal(err)
		}
	}
	return image
}

func ociLayout(t testing.TB, image v1.Image, platforms ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if len(platforms) == 0 {
		if err := p.AppendImage(image); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range platforms {
		platform, err := v1.ParsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.AppendImage(image, layout.WithPlatform(*platform)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func dockerSave(t testing.TB, image v1.Image) []byte {
	t.Helper()
	ref, err := name.ParseReference("example.org/root:1")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tarball.Write(ref, image, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestImportContainers(t *testing.T) {
	b := gnuTar(t, rootTree(t))
	image := containerImage(t, b)
	t.Run("layout", func(t *testing.T) { survived(t, imported(t, ociLayout(t, image), OCI)) })
	t.Run("docker", func(t *testing.T) { survived(t, imported(t, write(t, "save.tar", dockerSave(t, image)), Docker)) })
	t.Run("docker gzip", func(t *testing.T) {
		survived(t, imported(t, write(t, "save.tgz", packed(t, "gz", dockerSave(t, image))), Docker))
	})
}

func TestPlatforms(t *testing.T) {
	image := containerImage(t, tarOf(t, file("a", "x")))
	imported(t, ociLayout(t, image, "linux/amd64", "linux/arm64", "unknown/unknown"), OCI)
	for platform, want := range map[string]string{"linux/s390x": "no image for", "linux/amd64,linux/amd64": "2 images", "linux/arm64,linux/arm64": "2 images"} {
		_, err := Import(t.Context(), ociLayout(t, image, strings.Split(platform, ",")...), filepath.Join(t.TempDir(), "out"), nil)
		if err == nil || !(strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "no image for")) {
			t.Errorf("%s: %v", platform, err)
		}
	}
}

func link(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}
}
func dir(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }

func TestLayers(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers [][]byte
		want   map[string]string // content by name
		gone   []string
	}{
		{
			"the highest wins", [][]byte{tarOf(t, file("a", "1"), file("b", "1")), tarOf(t, file("a", "2"))},
			map[string]string{"a": "2", "b": "1"}, nil,
		}, {
			"whiteouts", [][]byte{
				tarOf(t, dir("d"), file("d/a", "1"), file("d/b", "1"), dir("e"), file("e/x", "1")),
				tarOf(t, file("d/.wh.a", ""), file(".wh.e", ""), file("f", "1"))},
			map[string]string{"d/b": "1", "f": "1"}, []string{"d/a", "e", "d/.wh.a"},
		}, {
			"removed and made again", [][]byte{
				tarOf(t, dir("d"), file("d/old", "1")), tarOf(t, file(".wh.d", "")), tarOf(t, dir("d"), file("d/new", "1"))},
			map[string]string{"d/new": "1"}, []string{"d/old"},
		}, {
			"opaque", [][]byte{
				tarOf(t, dir("d"), file("d/a", "1"), dir("d/s"), file("d/s/b", "1")), tarOf(t, dir("d"), file("d/c", "2"), file("d/.wh..wh..opq", ""))},
			map[string]string{"d/c": "2"}, []string{"d/a", "d/s"},
		}, {
			"a file in place of a directory, and back", [][]byte{
				tarOf(t, dir("d"), file("d/a", "1")), tarOf(t, file("d", "file")), tarOf(t, dir("d"), file("d/b", "3"))},
			map[string]string{"d/b": "3"}, []string{"d/a"},
		}, {
			"link whose target was replaced", [][]byte{
				tarOf(t, file("perl", "old"), link("perl5.36", "perl"), link("perl5", "perl")), tarOf(t, file("perl", "new"))},
			map[string]string{"perl": "new", "perl5.36": "old", "perl5": "old"}, nil,
		}, {
			"link whose target was removed", [][]byte{
				tarOf(t, file("a", "x"), link("b", "a"), link("c", "a")), tarOf(t, file(".wh.a", ""))},
			map[string]string{"b": "x", "c": "x"}, []string{"a"},
		}, {
			"link into a lower layer", [][]byte{tarOf(t, file("a", "x")), tarOf(t, link("b", "a"))},
			map[string]string{"a": "x", "b": "x"}, nil,
		}, {
			"link into a lower layer, target removed above", [][]byte{
				tarOf(t, file("a", "x")), tarOf(t, link("b", "a"), link("c", "a")), tarOf(t, file(".wh.a", ""))},
			map[string]string{"b": "x", "c": "x"}, []string{"a"},
		}, {
			"link to a link that is gone", [][]byte{
				tarOf(t, file("a", "x"), link("b", "a"), link("c", "b")), tarOf(t, file("b", "new"))},
			map[string]string{"a": "x", "b": "new", "c": "x"}, nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := extract(t, imported(t, ociLayout(t, containerImage(t, c.layers...)), OCI))
			for name, want := range c.want {
				if b, err := os.ReadFile(filepath.Join(got, name)); err != nil || string(b) != want {
					t.Errorf("%s: %q, %v; want %q", name, b, err, want)
				}
			}
			for _, name := range c.gone {
				if _, err := os.Lstat(filepath.Join(got, name)); !os.IsNotExist(err) {
					t.Errorf("%s is there", name)
				}
			}
		})
	}
	_, err := Import(t.Context(), ociLayout(t, containerImage(t, tarOf(t, link("b", "none")))), filepath.Join(t.TempDir(), "out"), nil)
	if err == nil || !strings.Contains(err.Error(), "hard link") {
		t.Errorf("a link to nothing: %v", err)
	}
}

// A damaged layer must not become an image.
func TestDamagedLayer(t *testing.T) {
	source := ociLayout(t, containerImage(t, tarOf(t, file("a", strings.Repeat("x", 100_000)))))
	blobs, err := filepath.Glob(filepath.Join(source, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	damaged := false
	for _, p := range blobs {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(b, []byte("\x1f\x8b")) {
			b[len(b)/2] ^= 1
			damaged = true
			if err := os.WriteFile(p, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !damaged {
		t.Fatal("no layer found")
	}
	if _, err := Import(t.Context(), source, filepath.Join(t.TempDir(), "out"), nil); err == nil {
		t.Error("a damaged layer was imported")
	}
}

func TestImportSystem(t *testing.T) {
	for source, want := range map[string]string{"without": "", "with": "id\n"} {
		entries := []tar.Header{dir("./"), dir("./etc/"), file("./etc/hosts", "x")}
		if want != "" {
			entries = append(entries, file("./etc/machine-id", want))
		}
		out := filepath.Join(t.TempDir(), "out")
		if _, err := ImportSystem(t.Context(), write(t, source, tarOf(t, entries...)), out, nil); err != nil {
			t.Fatal(err)
		}
		if raw, err := os.ReadFile(filepath.Join(extract(t, out), "etc/machine-id")); err != nil || string(raw) != want {
			t.Errorf("%s: %q, %v", source, raw, err)
		}
	}
}
