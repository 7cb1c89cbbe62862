package cli

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

// exportCommand is `bootconfig export`.
func (m *muster) exportCommand(names cobra.CompletionFunc) *cobra.Command {
	var groups []string
	var bare bool
	var p progressFlag
	c := &cobra.Command{
		Use: "export NAME {FILE|-}", Short: "Write a boot configuration and all that belongs to it to one file",
		Long: `Write the boot configuration NAME with its kernel and initramfs, its image and
its kickstarts to FILE, a tar archive, for muster bootconfig import on another head.`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: thenFile(names),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if bare {
				q.Set("image", "false")
			}
			if len(groups) > 0 {
				q.Set("groups", strings.Join(groups, ","))
			}
			return m.download(cmd.Context(), client.Path(object.KindBootconfig, args[0], "export")+"?"+q.Encode(), args[1], p)
		},
	}
	c.Flags().StringSliceVar(&groups, "groups", nil, "add these attribute groups")
	c.Flags().BoolVar(&bare, "no-image", false, "leave the image out")
	p.flags(c)
	return c
}

// importCommand is `bootconfig import`.
func (m *muster) importCommand() *cobra.Command {
	var name, image string
	var p progressFlag
	c := &cobra.Command{
		Use: "import FILE", Short: "Make a boot configuration and what belongs to it from an exported file", Args: cobra.ExactArgs(1),
		Long: `Make the boot configuration, image, kickstarts and attribute groups that FILE
holds, which muster bootconfig export wrote. Nothing that is here is changed, and
where anything is wrong with FILE nothing is made.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			for key, value := range map[string]string{"name": name, "image": image} {
				if value != "" {
					q.Set(key, value)
				}
			}
			return m.importBootconfig(cmd.Context(), client.Path("bootconfigs", "import")+"?"+q.Encode(), args[0], p)
		},
	}
	c.Flags().StringVar(&name, "name", "", "another name for the boot configuration")
	c.Flags().StringVar(&image, "image", "", "another name for the image")
	p.flags(c)
	return c
}

func (m *muster) importBootconfig(ctx context.Context, path, file string, p progressFlag) error {
	var made struct{ Name, Image string }
	if err := m.uploadFile(ctx, path, filepath.Base(file), file, p, &made); err != nil {
		return err
	}
	if made.Image != "" {
		fmt.Fprintf(m.Stderr, "image %s\n", printable(made.Image))
	}
	_, err := fmt.Fprintln(m.Stdout, printable(made.Name))
	return err
}
