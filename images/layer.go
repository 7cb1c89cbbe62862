package images

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Bounds on what the layers of a container image unpack to, in bytes: a small
// archive may hold endless zeros.
const (
	maxUnpacked = 256 << 30 // of all layers
	maxRatio    = 200       // of one to its compressed size, beyond
	freeRatio   = 1 << 30
)

// unpackedDigests gives the digests of what an image's layers unpack to, from
// the configuration that its manifest names. (Layers read from a file know
// only what is in the file.)
func unpackedDigests(image v1.Image, layers int) ([]v1.Hash, error) {
	manifest, err := image.Manifest()
	if err != nil {
		return nil, err
	}
	raw, err := image.RawConfigFile()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	if d := manifest.Config.Digest; d.Algorithm != "sha256" || d.Hex != hex.EncodeToString(sum[:]) {
		return nil, fmt.Errorf("the image's configuration is damaged: it has the digest sha256:%x, not %s", sum, d)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	if len(config.RootFS.DiffIDs) != layers {
		return nil, fmt.Errorf("the image has %d layers and its configuration names %d", layers, len(config.RootFS.DiffIDs))
	}
	return config.RootFS.DiffIDs, nil
}

// openLayer reads what a layer unpacks to, which must have the digest want
// unless that is nil.
func openLayer(layer v1.Layer, left *int64, want *v1.Hash) (io.ReadCloser, error) {
	size, err := layer.Size()
	if err != nil {
		return nil, err
	}
	r, err := layer.Uncompressed()
	if err != nil {
		return nil, err
	}
	out := &layerReader{ReadCloser: r, left: left, own: freeRatio + maxRatio*min(size, maxUnpacked/maxRatio)}
	if want != nil {
		if want.Algorithm != "sha256" {
			return nil, errors.Join(fmt.Errorf("its digest %s is no SHA-256", *want), r.Close())
		}
		out.sum, out.want = sha256.New(), want.Hex
	}
	return out, nil
}

type layerReader struct {
	io.ReadCloser
	left *int64 // of all layers
	own  int64  // of this one
	sum  hash.Hash
	want string
}

func (l *layerReader) Read(b []byte) (int, error) {
	n, err := l.ReadCloser.Read(b)
	*l.left -= int64(n)
	if l.own -= int64(n); l.own < 0 || *l.left < 0 {
		return 0, errors.New("the layer unpacks to more than any image has: it looks like a bomb")
	}
	if l.sum == nil {
		return n, err
	}
	l.sum.Write(b[:n])
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if got := hex.EncodeToString(l.sum.Sum(nil)); got != l.want {
		return n, fmt.Errorf("the layer is damaged: what it unpacks to has the digest sha256:%s, not sha256:%s", got, l.want)
	}
	return n, io.EOF
}
