package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"muster/initramfs"
	"muster/shared/client"
	"muster/shared/object"
)

// bootFiles are what `bootconfig create` and `update` upload beside the
// fields. A nil one uploads nothing.
type bootFiles struct {
	m                          *muster
	kernel, modules, initramfs string
	extra                      []string
	firmware                   string
	progress                   progressFlag

	open []upload
}

// upload is a file that is ready to be sent.
type upload struct {
	what string // path word of the API
	file *os.File
	size int64
}

func (b *bootFiles) flags(c *cobra.Command) {
	c.Flags().StringVar(&b.kernel, "kernel", "", "upload this kernel, a vmlinuz file")
	c.Flags().StringVar(&b.modules, "modules", "", "build the initramfs from this lib/modules/VERSION directory and upload it")
	c.Flags().StringVar(&b.initramfs, "initramfs", "", "upload this initramfs instead of building one")
	c.Flags().StringArrayVar(&b.extra, "extra-module", nil, "pack this module too, once for each")
	c.Flags().StringVar(&b.firmware, "firmware", "", "pack the firmware that modules ask for from this lib/firmware directory")
	b.progress.flags(c)
	c.MarkFlagsMutuallyExclusive("modules", "initramfs")
	for _, dir := range []string{"modules", "firmware"} {
		must(c.MarkFlagDirname(dir))
	}
}

func (b *bootFiles) any() bool {
	return b != nil && (b.kernel != "" || b.modules != "" || b.initramfs != "" || b.firmware != "" || len(b.extra) > 0)
}

// prepare opens and builds everything before anything is changed at the head.
func (b *bootFiles) prepare(ctx context.Context) error {
	if b == nil {
		return nil
	}
	if b.modules == "" && (len(b.extra) > 0 || b.firmware != "") {
		return errors.New("--extra-module and --firmware need --modules DIR")
	}
	err := b.add("kernel", b.kernel)
	if err == nil {
		err = b.add("initramfs", b.initramfs)
	}
	if err == nil && b.modules != "" {
		err = b.build()
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		b.close()
	}
	return err
}

func (b *bootFiles) add(what, path string) error {
	if path == "" {
		return nil
	}
	f, size, err := openRegular(path)
	if err == nil {
		b.open = append(b.open, upload{what, f, size})
	}
	return err
}

// openRegular opens a file that can be uploaded.
func openRegular(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "upload", Path: path, Err: errors.New("is not a regular file")}
	}
	if err == nil && info.Size() == 0 {
		err = &fs.PathError{Op: "upload", Path: path, Err: errors.New("is empty")}
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// build packs the modules, and says what came of it.
func (b *bootFiles) build() error {
	tmp, err := os.CreateTemp("", "muster-initramfs-*")
	if err != nil {
		return err
	}
	// Without a name it is gone with this program, however that ends.
	b.open = append(b.open, upload{what: "initramfs", file: tmp})
	if err := os.Remove(tmp.Name()); err != nil {
		return err
	}
	r, err := initramfs.Modules(tmp, b.modules, initramfs.Options{Extra: b.extra, Firmware: b.firmware})
	if err != nil {
		return err
	}
	packed, err := tmp.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	b.open[len(b.open)-1].size = packed
	fmt.Fprintf(b.m.Stderr, "modules of %s: %d packed (%s, compressed %s), %d in the kernel, %d firmware files\n",
		printable(r.Release), len(r.Included), bytesText(r.Bytes), bytesText(packed), len(r.BuiltIn), len(r.Firmware))
	fmt.Fprintf(b.m.Stderr, "packed: %s\n", printable(strings.Join(r.Included, " ")))
	if len(r.Missing) > 0 {
		fmt.Fprintf(b.m.Stderr, "not there: %s\n", printable(strings.Join(r.Missing, " ")))
	}
	return nil
}

// upload sends the files to one boot configuration.
func (b *bootFiles) upload(ctx context.Context, id string) error {
	if b == nil {
		return nil
	}
	c, err := b.m.connect()
	if err != nil {
		return err
	}
	for _, u := range b.open {
		if _, err := u.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := b.m.send(ctx, c, client.Path(object.KindBootconfig, id, u.what), u, b.progress, nil); err != nil {
			return fmt.Errorf("%s: %w", u.what, err)
		}
	}
	return b.warn(ctx, c, id)
}

// warn tells what the head found wrong with an uploaded file: it keeps any
// bytes, but nothing will boot from these.
func (b *bootFiles) warn(ctx context.Context, c *client.Client, id string) error {
	var stored map[string]json.RawMessage
	if err := c.Call(ctx, "GET", client.Path(object.KindBootconfig, id), nil, &stored); err != nil {
		return err
	}
	for _, u := range b.open {
		var file struct{ Problem string }
		if json.Unmarshal(stored[u.what], &file) == nil && file.Problem != "" {
			b.m.complain(fmt.Sprintf("%s: uploaded, but no node can boot it: %s", u.what, file.Problem))
		}
	}
	return nil
}

// uploadFile uploads a file, and decodes the answer's data into out unless that
// is nil.
func (m *muster) uploadFile(ctx context.Context, path, what, file string, p progressFlag, out any) error {
	f, size, err := openRegular(file)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := m.connect()
	if err != nil {
		return err
	}
	return m.send(ctx, c, path, upload{what, f, size}, p, out)
}

// send uploads an open file with a bar.
func (m *muster) send(ctx context.Context, c *client.Client, path string, u upload, p progressFlag, out any) error {
	show, err := m.bar(p, "upload "+u.what)
	if err != nil {
		return err
	}
	defer show.end()
	return c.UploadFor(ctx, path, u.file, u.size, func(done int64) { show.at(done, u.size) }, out)
}

func (b *bootFiles) close() {
	if b == nil {
		return
	}
	for _, u := range b.open {
		u.file.Close()
	}
	b.open = nil
}

// bootconfigCommands are those of the boot configurations' own endpoints.
func (m *muster) bootconfigCommands() []*cobra.Command {
	names := m.completeNames(m.spec(object.KindBootconfig))
	var p progressFlag
	parts := []string{"kernel", "initramfs"}
	down := &cobra.Command{
		Use: "download NAME {kernel|initramfs} {FILE|-}", Short: "Write an uploaded file to a file or to standard output", Args: cobra.ExactArgs(3),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return names(cmd, args, part)
			case 1:
				return parts, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] != parts[0] && args[1] != parts[1] {
				return fmt.Errorf("a boot configuration has no file %q, only kernel and initramfs", args[1])
			}
			return m.download(cmd.Context(), client.Path(object.KindBootconfig, args[0], args[1]), args[2], p)
		},
	}
	p.flags(down)
	check := &cobra.Command{
		Use: "errors [NAME]", Short: "Say what keeps boot configurations from booting", Args: cobra.MaximumNArgs(1), ValidArgsFunction: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			path := client.Path("bootconfigs", "errors")
			if len(args) > 0 {
				path = client.Path(object.KindBootconfig, args[0], "errors")
			}
			return c.Call(cmd.Context(), "GET", path, nil, nil)
		},
	}
	return []*cobra.Command{down, check, m.isoCommand(names), m.exportCommand(names), m.importCommand()}
}
