package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"muster/images"
	"muster/images/sandbox"
	"muster/shared/client"
	"muster/shared/fault"
	"muster/shared/object"
)

// imageCommands are those of the images' own endpoints.
func (m *muster) imageCommands() []*cobra.Command {
	nameThenFile := thenFile(m.completeNames(m.spec(object.KindImage)))
	var up, down, both progressFlag
	importing := &cobra.Command{
		Use: "import NAME SOURCE", Short: "Make an image from a directory, an archive or a container image",
		Long: `Make SOURCE the content of the image NAME, which is created if there is none.

SOURCE is a directory (file systems mounted below it are part of the image,
unless they are virtual or remote), a tar archive (plain, gzip, zstd or xz), a
squashfs file, an OCI layout directory, what docker save wrote, or an image in a
registry: docker://HOST/NAME:TAG, with the login of ~/.docker/config.json. The
squashfs is made on this machine, with the squashfs-tools, in TMPDIR or else
/var/tmp; nothing is uploaded that is not sound.`,
		Args: cobra.ExactArgs(2), ValidArgsFunction: nameThenFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.importImage(cmd.Context(), args[0], args[1], both)
		},
	}
	both.flags(importing)
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
	return []*cobra.Command{importing, m.buildCommand(), m.editCommand(), m.imageExportCommand(), uploading, downloading, m.captureCommand(),
		m.imageLog(), m.imageDiff(), m.imageApply(), m.imageRollback(), m.imageTag(), m.imageFsck()}
}

// captureCommand fills an image from a node.
func (m *muster) captureCommand() *cobra.Command {
	var body struct {
		UID         string   `json:"uid"`
		Exclude     []string `json:"exclude,omitempty"`
		Credentials bool     `json:"credentials,omitempty"`
		Compress    bool     `json:"compress,omitempty"`
	}
	cmd := &cobra.Command{
		Use: "capture NAME NODE", Short: "Make what a running node has on its root file system the content of an image",
		Long: `Make what a running node has on its root file system the content of an image,
which must exist. What is empty on a machine that is off stays out (/proc, /run,
/tmp, …), and what makes a machine itself: host keys, machine id, keys of users.
The head makes the image, with the squashfs-tools.`,
		Args: cobra.ExactArgs(2), ValidArgsFunction: m.completeNames(m.spec(object.KindImage)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			body.UID = args[1]
			return c.Call(cmd.Context(), http.MethodPost, client.Path(object.KindImage, args[0], "capture"), body, nil)
		},
	}
	cmd.Flags().StringSliceVar(&body.Exclude, "exclude", nil, "`paths` to leave out, from the root")
	cmd.Flags().BoolVar(&body.Credentials, "credentials", false, "take what makes the machine itself too")
	cmd.Flags().BoolVar(&body.Compress, "compress", false, "compress on the way, for a slow network")
	return cmd
}

// maxWarnings bounds how many of an import's warnings are shown.
const maxWarnings = 10

func (m *muster) importImage(ctx context.Context, name, source string, p progressFlag) error {
	return m.makeImage(ctx, name, p, func(path string) (images.Info, error) {
		show, err := m.bar(p, "read "+filepath.Base(source))
		if err != nil {
			return images.Info{}, err
		}
		info, err := images.Import(ctx, source, path, show.at)
		show.end()
		if err == nil {
			fmt.Fprintf(m.Stderr, "made from %s %s: %s\n", info.Form, printable(source), made(info))
		}
		return info, err
	})
}

// made tells what came of making an image.
func made(info images.Info) string {
	return fmt.Sprintf("%s, %d files and directories", bytesText(info.Size), info.Superblock.Inodes)
}

// makeImage makes the content of an image, which is created where there is
// none, by what how leaves at a path.
func (m *muster) makeImage(ctx context.Context, name string, p progressFlag, how func(path string) (images.Info, error)) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	// What would be refused at the end is better known before minutes of work.
	was, err := client.Get[object.Image](ctx, c, object.KindImage, name)
	missing := fault.Is(err, fault.NotFound)
	switch {
	case err != nil && !missing:
		return err
	case was.Frozen:
		return errors.New(m.spec(object.KindImage).Frozen)
	}
	work, remove, err := sandbox.Work(m.temp(), "muster-import-")
	if err != nil {
		return err
	}
	path := filepath.Join(work, "image.squashfs")
	err = m.makeAndUpload(ctx, c, name, missing, path, p, how)
	return errors.Join(err, remove())
}

func (m *muster) makeAndUpload(ctx context.Context, c *client.Client, name string, missing bool, path string, p progressFlag, how func(path string) (images.Info, error)) error {
	info, err := how(path)
	if err != nil {
		return err
	}
	m.warnings(info)
	if missing {
		if _, err := c.Create(ctx, m.spec(object.KindImage).Plural, map[string]string{"name": name}); err != nil {
			return err
		}
	}
	return m.uploadImage(ctx, name, path, p)
}

// temp is where much may be written for a while.
func (m *muster) temp() string {
	if dir := m.Getenv("TMPDIR"); dir != "" {
		return dir
	}
	return "/var/tmp"
}

func (m *muster) warnings(info images.Info) {
	for i, w := range info.Warnings {
		if i == maxWarnings {
			m.complain(fmt.Sprintf("and %d more warnings", len(info.Warnings)-i))
			break
		}
		m.complain(w)
	}
}

func (m *muster) uploadImage(ctx context.Context, name, path string, p progressFlag) error {
	return m.uploadFile(ctx, client.Path(object.KindImage, name, "content"), "content", path, p, nil)
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
	return m.fetchTo(ctx, c, path, to, show.at)
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
