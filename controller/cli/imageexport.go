package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"muster/images"
	"muster/images/build"
	"muster/images/sandbox"
	"muster/shared/client"
	"muster/shared/object"
)

func (m *muster) imageExportCommand() *cobra.Command {
	var p progressFlag
	var format string
	forms := []string{"directory", "tar", "squashfs", "oci"}
	c := &cobra.Command{
		Use: "export NAME TARGET", Short: "Write an image as a directory, an archive, a squashfs or a container image",
		Long: `Write the content of the image NAME to TARGET, from which muster image import makes
the same image again. Its form follows from its name: .tar, .tar.gz or .tar.zst, .squashfs,
.oci for an OCI layout; anything else is a directory. --format says it otherwise.
All but a squashfs needs root.`,
		Args: cobra.ExactArgs(2), ValidArgsFunction: thenFile(m.completeNames(m.spec(object.KindImage))),
		RunE: func(cmd *cobra.Command, args []string) error {
			form := images.FormOf(args[1])
			if format != "" {
				form = images.Form(format)
			}
			return m.exportImage(cmd.Context(), args[0], args[1], form, p)
		},
	}
	c.Flags().StringVar(&format, "format", "", "directory, tar, squashfs or oci")
	must(c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(forms, cobra.ShellCompDirectiveNoFileComp)))
	p.flags(c)
	return c
}

func (m *muster) exportImage(ctx context.Context, name, target string, form images.Form, p progressFlag) error {
	content := client.Path(object.KindImage, name, "content")
	switch form {
	case images.Squashfs:
		return m.download(ctx, content, target, p)
	case images.Directory, images.Tar, images.OCI:
	default:
		return fmt.Errorf("--format %q is none of directory, tar, squashfs and oci", string(form))
	}
	if os.Geteuid() != 0 {
		return errors.New("files of all owners can be written by root only: run it as root, or export a squashfs")
	}
	steps, err := m.steps(p, false)
	if err != nil {
		return err
	}
	defer steps.end()
	c, err := m.connect()
	if err != nil {
		return err
	}
	work, remove, err := sandbox.Work(m.temp(), "muster-import-")
	if err != nil {
		return err
	}
	path := filepath.Join(work, "image.squashfs")
	steps.Step("fetch the image " + name)
	if err = m.fetchTo(ctx, c, content, path, steps.At); err == nil {
		err = build.Export(ctx, path, target, form, m.temp(), steps)
	}
	return errors.Join(err, remove())
}

// fetchTo downloads what is at a path to a file, which appears only when it is
// complete.
func (m *muster) fetchTo(ctx context.Context, c *client.Client, path, to string, progress func(done, total int64)) error {
	tmp, err := os.CreateTemp(filepath.Dir(to), ".muster-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = c.Download(ctx, path, tmp, progress)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), to)
}
