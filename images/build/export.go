package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"muster/images"
	"muster/images/sandbox"
)

// Export writes an image, a squashfs, as the target in another form: a
// directory, an archive compressed as its name says, or an OCI layout.
// images.Import of it gives the same image. The target must not be there, or
// be an archive or an empty directory, which is replaced; it appears when it is
// complete.
func Export(ctx context.Context, image, target string, form images.Form, temp string, w Watcher) error {
	if form != images.Tar {
		if left, err := os.ReadDir(target); err == nil && len(left) > 0 {
			return fmt.Errorf("%s is not empty: name a directory that is not there yet", target)
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return inWork(temp, "muster-export-", func(work string) (err error) {
		// Beside the target, so that the last step is a rename.
		half, remove, err := sandbox.Work(filepath.Dir(filepath.Clean(target)), ".muster-export-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, remove()) }()
		out := filepath.Join(half, "out")
		switch form {
		case images.Directory:
			w.Step("unpack")
			err = images.Unpack(ctx, image, out, w.At)
		case images.Tar:
			err = exportTar(ctx, image, out, target, work, w)
		case images.OCI:
			archive := filepath.Join(work, "layer.tar.zst")
			if err = exportTar(ctx, image, archive, archive, work, w); err == nil {
				w.Step("write the layout")
				err = images.WriteLayout(archive, out)
			}
		default:
			err = fmt.Errorf("an image is not exported as %q", form)
		}
		if err != nil {
			return err
		}
		return os.Rename(out, target)
	})
}

// exportTar writes an image's tree to a file, compressed as name says.
func exportTar(ctx context.Context, image, file, name, work string, w Watcher) error {
	total, err := images.Unpacked(image)
	if err != nil {
		return err
	}
	tree := filepath.Join(work, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if err := sandbox.Squashfs(image, tree); errors.Is(err, sandbox.ErrLoop) {
		w.Step("unpack (" + err.Error() + ")")
		err = images.Unpack(ctx, image, tree, w.At)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := images.Compressor(name, f)
	if err != nil {
		return err
	}
	w.Step("write the archive")
	err = images.WriteTar(ctx, tree, z, total, w.At)
	if err := errors.Join(err, z.Close()); err != nil {
		return err
	}
	w.At(total, total)
	return f.Close()
}
