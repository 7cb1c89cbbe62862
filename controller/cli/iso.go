package cli

import (
	"net/url"

	"github.com/spf13/cobra"

	"muster/shared/client"
)

// isoCommand is `bootconfig mkiso`.
func (m *muster) isoCommand(names cobra.CompletionFunc) *cobra.Command {
	var image, node, address string
	var p progressFlag
	c := &cobra.Command{
		Use: "mkiso NAME {FILE|-}", Short: "Make an ISO that boots a machine whose network card cannot",
		Long: `Make an ISO file for the boot configuration NAME: kernel, initramfs and agent are
on it, the image comes from the head. It boots BIOS and UEFI machines, as a CD
and, written to one with dd, from a USB stick.`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: thenFile(names),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"uid": {args[0]}}
			for key, value := range map[string]string{"image": image, "node": node, "url": address} {
				if value != "" {
					q.Set(key, value)
				}
			}
			return m.download(cmd.Context(), client.Path("bootconfigs", "mkiso")+"?"+q.Encode(), args[1], p)
		},
	}
	c.Flags().StringVar(&image, "image", "", "boot this image instead of the boot configuration's own")
	c.Flags().StringVar(&node, "node", "", "fill in the command line with this node's values; the ISO is then for it alone")
	c.Flags().StringVar(&address, "url", "", "URL of the head, as the machine reaches it")
	p.flags(c)
	return c
}
