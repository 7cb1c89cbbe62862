package library

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"

	"muster/images/chunk"
	"muster/images/pack"
	"muster/images/tree"
)

// PackageDiff is a package that two versions have not alike. A version is empty
// where there is none.
type PackageDiff struct {
	Name string `json:"name"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// maxDatabase bounds the list of packages of an image, in bytes.
const maxDatabase = 64 << 20

// packages gives the versions of what dpkg has installed in a tree, by name
// and architecture; empty for other trees.
func (l *Library) packages(ctx context.Context, m *tree.Manifest) map[string]string {
	raw, err := l.opt.Blobs.fileIn(ctx, m, "var/lib/dpkg/status")
	if err != nil {
		return nil
	}
	return dpkgStatus(raw)
}

// dpkgStatus reads /var/lib/dpkg/status (deb-control(5), one paragraph for a package).
func dpkgStatus(raw []byte) map[string]string {
	out := map[string]string{}
	var name, arch, version, status string
	end := func() {
		if name != "" && strings.HasSuffix(status, " installed") {
			out[name+":"+arch] = version
		}
		name, arch, version, status = "", "", "", ""
	}
	s := bufio.NewScanner(bytes.NewReader(raw))
	s.Buffer(nil, maxDatabase)
	for s.Scan() {
		key, value, _ := strings.Cut(s.Text(), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "":
			end()
		case "Package":
			name = value
		case "Architecture":
			arch = value
		case "Version":
			version = value
		case "Status":
			status = value
		}
	}
	end()
	return out
}

func comparePackages(from, to map[string]string) []PackageDiff {
	out := []PackageDiff{}
	for name, was := range from {
		if now := to[name]; now != was {
			out = append(out, PackageDiff{name, was, now})
		}
	}
	for name, now := range to {
		if _, ok := from[name]; !ok {
			out = append(out, PackageDiff{name, "", now})
		}
	}
	slices.SortFunc(out, func(a, b PackageDiff) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// fileIn reads a file of a tree.
func (b *Blobs) fileIn(ctx context.Context, m *tree.Manifest, path string) ([]byte, error) {
	e, ok, err := m.Find(path)
	if err != nil {
		return nil, err
	}
	if !ok || e.Kind != tree.File || e.Size > maxDatabase {
		return nil, pack.ErrAbsent
	}
	codec, buf, out := chunk.NewCodec(), &pack.Buffer{}, make([]byte, 0, e.Size)
	for _, p := range e.Parts {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if p.Hole > 0 {
			out = append(out, make([]byte, p.Hole)...)
			continue
		}
		content, err := b.chunks.Content(codec, p.Chunk, buf)
		if err != nil {
			return nil, err
		}
		out = append(out, content...)
	}
	return out, nil
}
