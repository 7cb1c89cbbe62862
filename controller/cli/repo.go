package cli

import (
	"context"

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
		RunE: func(cmd *cobra.Command, args []string) error { return m.uploadISO(cmd.Context(), args[0], args[1], up) },
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

func (m *muster) uploadISO(ctx context.Context, name, path string, p progressFlag) error {
	f, size, err := openRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := m.connect()
	if err != nil {
		return err
	}
	return m.send(ctx, c, client.Path(object.KindRepo, name, "iso"), upload{"iso", f, size}, p)
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
