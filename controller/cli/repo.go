package cli

import (
	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

// repoCommands are those of the repos' own endpoints.
func (m *muster) repoCommands() []*cobra.Command {
	nameThenFile := thenFile(m.completeNames(m.spec(object.KindRepo)))
	var up, down progressFlag
	uploading := &cobra.Command{
		Use: "iso NAME FILE", Short: "Upload an ISO, whose packages the head then serves", Args: cobra.ExactArgs(2), ValidArgsFunction: nameThenFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.uploadFile(cmd.Context(), client.Path(object.KindRepo, args[0], "iso"), "iso", args[1], up, nil)
		},
	}
	up.flags(uploading)
	downloading := &cobra.Command{
		Use: "download NAME {FILE|-}", Short: "Write a repo's ISO to a file or to standard output", Args: cobra.ExactArgs(2), ValidArgsFunction: nameThenFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.download(cmd.Context(), client.Path(object.KindRepo, args[0], "iso"), args[1], down)
		},
	}
	down.flags(downloading)
	return []*cobra.Command{uploading, downloading}
}

// distroCommands are those of the distros' own endpoints.
func (m *muster) distroCommands() []*cobra.Command {
	return []*cobra.Command{{
		Use: "sources NAME", Short: "Print the distribution's repositories as a file for apt, dnf or apk",
		Args: cobra.ExactArgs(1), ValidArgsFunction: m.completeNames(m.spec(object.KindDistro)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.download(cmd.Context(), client.Path(object.KindDistro, args[0], "sources"), "-", "never")
		},
	}}
}
