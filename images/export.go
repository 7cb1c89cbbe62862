package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// WriteTar writes the tree at dir, the root of an image, as a tar archive that
// Import makes the same image from: numeric owners, attributes, hard links,
// devices, holes. total is what the files in it add up to. GNU tar reads it.
func WriteTar(ctx context.Context, dir string, w io.Writer, total int64, progress Progress) error {
	path, err := exec.LookPath("tar")
	if err != nil {
		return errors.New("the program tar is missing: install the package tar (GNU tar)")
	}
	cmd, said := quiet(exec.CommandContext(ctx, path, "--create", "--file=-", "--directory="+dir, "--format=pax", "--numeric-owner", "--sort=name",
		// Times of access and change would make each archive another.
		"--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f",
		"--sparse", "--hole-detection=raw", "--xattrs", "--xattrs-include=*", "--one-file-system", "."))
	cmd.Stdout = &progressWriter{w: w, total: total, report: progress}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("tar: %w: %s", err, lastLines(said.String()))
	}
	return nil
}

type progressWriter struct {
	w                 io.Writer
	done, last, total int64
	report            Progress
}

func (p *progressWriter) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	if p.done += int64(n); p.done-p.last >= progressStep {
		p.last = p.done
		p.report(min(p.done, p.total), p.total)
	}
	return n, err
}

// Compressor wraps w with what the name of an archive says: .gz or .tgz, .zst,
// .tzst or .zstd, else nothing. zstd takes all cores.
func Compressor(name string, w io.Writer) (io.WriteCloser, error) {
	switch filepath.Ext(name) {
	case ".gz", ".tgz":
		return gzip.NewWriter(w), nil
	case ".zst", ".tzst", ".zstd":
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(runtime.NumCPU()))
	case ".xz":
		return nil, errors.New("archives are not written in xz, which takes minutes: name it .tar.zst")
	}
	return unclosed{w}, nil
}

type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// WriteLayout makes the directory out, which must not be there, an OCI layout
// with one image of one layer: the tree in the file archive, a tar.zst.
func WriteLayout(archive, out string) error {
	layer, err := tarball.LayerFromFile(archive, tarball.WithMediaType(types.OCILayerZStd))
	if err != nil {
		return err
	}
	config, err := empty.Image.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	image, err := mutate.ConfigFile(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1), config)
	if err != nil {
		return err
	}
	if image, err = mutate.Append(image, mutate.Addendum{Layer: layer, MediaType: types.OCILayerZStd}); err != nil {
		return err
	}
	path, err := layout.Write(out, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendImage(image, layout.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}))
}

// FormOf tells the form of an export by the name of its target: an archive, a
// squashfs, or a directory; an OCI layout where the name ends with .oci.
func FormOf(target string) Form {
	base := strings.ToLower(filepath.Base(target))
	switch ext := filepath.Ext(base); {
	case ext == ".tar" || strings.Contains(base, ".tar.") || ext == ".tgz" || ext == ".tzst":
		return Tar
	case ext == ".squashfs" || ext == ".sqfs" || ext == ".sqsh":
		return Squashfs
	case ext == ".oci":
		return OCI
	}
	return Directory
}
