package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

// imageCommands are those of the images' own endpoints.
func (m *muster) imageCommands() []*cobra.Command {
	names := m.completeNames(m.spec(object.KindImage))
	nameThenFile := func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return names(cmd, args, part)
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
	var up, down progressFlag
	uploading := &cobra.Command{
		Use: "upload NAME FILE", Short: "Make a squashfs file the content of an image, byte for byte", Args: cobra.ExactArgs(2), ValidArgsFunction: nameThenFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.uploadImage(cmd.Context(), args[0], args[1], up)
		},
	}
	up.flags(uploading)
	downloading := &cobra.Command{
		Use: "download NAME {FILE|-}", Short: "Write an image's content to a file or to standard output", Args: cobra.ExactArgs(2), ValidArgsFunction: nameThenFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.download(cmd.Context(), client.Path(object.KindImage, args[0], "content"), args[1], down)
		},
	}
	down.flags(downloading)
	return []*cobra.Command{uploading, downloading}
}

func (m *muster) uploadImage(ctx context.Context, name, path string, p progressFlag) error {
	f, size, err := openRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := m.connect()
	if err != nil {
		return err
	}
	return m.send(ctx, c, client.Path(object.KindImage, name, "content"), upload{"content", f, size}, p)
}

// download writes what is at a path to a file, which appears only when it is
// complete, or to standard output.
func (m *muster) download(ctx context.Context, path, to string, p progressFlag) (err error) {
	c, err := m.connect()
	if err != nil {
		return err
	}
	show, err := m.bar(p, "download")
	if err != nil {
		return err
	}
	defer show.end()
	if to == "-" {
		_, err := c.Download(ctx, path, m.Stdout, show.at)
		return err
	}
	if info, err := os.Stat(to); err == nil && !info.Mode().IsRegular() {
		return m.downloadOver(ctx, c, path, to, show)
	}
	tmp, err := os.CreateTemp(filepath.Dir(to), ".muster-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = c.Download(ctx, path, tmp, show.at)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), to)
}

// downloadOver writes to what is no file and cannot be replaced, such as a pipe.
func (m *muster) downloadOver(ctx context.Context, c *client.Client, path, to string, show *bar) error {
	f, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = c.Download(ctx, path, f, show.at)
	return errors.Join(err, f.Close())
}
