package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

// overlayCommands change single files of an overlay, and show what a node gets.
func (m *muster) overlayCommands() []*cobra.Command {
	names := m.completeNames(m.spec(object.KindOverlay))
	put := object.OverlayFile{}
	putting := &cobra.Command{
		Use: "put NAME PATH {FILE|-}", Short: "Put a file of yours at a path on the overlay's nodes", Args: cobra.ExactArgs(3), ValidArgsFunction: thenFile(names),
		Long: `Put a file of yours at a path on the overlay's nodes, in the place of the one that
the overlay has there. It is a template: <name> or <a[rack]> stand for values of
the node; --literal takes it as it is. Nodes that are up have it at once.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			content, err := m.readText(args[2])
			if err != nil {
				return err
			}
			put.Path, put.Content = args[1], content
			return m.changeOverlay(cmd.Context(), args[0], func(files []object.OverlayFile) ([]object.OverlayFile, error) {
				if i := fileAt(files, put.Path); i >= 0 {
					files[i] = put
					return files, nil
				}
				return append(files, put), nil
			})
		},
	}
	f := putting.Flags()
	f.StringVar(&put.Owner, "owner", "", "user on the node, by name or number (default root)")
	f.StringVar(&put.Group, "group", "", "group on the node, by name or number (default root)")
	f.StringVar(&put.Mode, "mode", "", "permissions in octal (default 0644, with --secret 0600)")
	f.BoolVar(&put.Literal, "literal", false, "it is no template")
	f.BoolVar(&put.Secret, "secret", false, "only for nodes that a certificate speaks for")
	dropping := &cobra.Command{
		Use: "drop NAME PATH…", Short: "Take files out of an overlay; on its nodes comes back what was there before", Args: cobra.MinimumNArgs(2), ValidArgsFunction: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.changeOverlay(cmd.Context(), args[0], func(files []object.OverlayFile) ([]object.OverlayFile, error) {
				for _, path := range args[1:] {
					i := fileAt(files, path)
					if i < 0 {
						return nil, fmt.Errorf("overlay %s has no file %s", args[0], path)
					}
					files = slices.Delete(files, i, i+1)
				}
				return files, nil
			})
		},
	}
	return []*cobra.Command{putting, dropping, m.showOverlay()}
}

func fileAt(files []object.OverlayFile, path string) int {
	return slices.IndexFunc(files, func(f object.OverlayFile) bool { return f.Path == path })
}

// maxOverlayText is more than a head takes, in bytes: it says so better.
const maxOverlayText = 1 << 20

func (m *muster) readText(path string) (string, error) {
	in := io.Reader(m.Stdin)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxOverlayText))
	return string(raw), err
}

// changeOverlay reads an overlay's files and writes them changed.
func (m *muster) changeOverlay(ctx context.Context, name string, change func([]object.OverlayFile) ([]object.OverlayFile, error)) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	o, err := client.Get[object.Overlay](ctx, c, object.KindOverlay, name)
	if err != nil {
		return err
	}
	files, err := change(o.Files)
	if err != nil {
		return err
	}
	if files == nil {
		files = []object.OverlayFile{}
	}
	return c.Patch(ctx, object.KindOverlay, name, map[string]any{"files": files})
}

// shownFile is a file as the head renders it.
type shownFile struct {
	Overlay, Path, Owner, Group, Mode, Content string
	Secret                                     bool
}

func (m *muster) showOverlay() *cobra.Command {
	var at string
	c := &cobra.Command{
		Use: "show NODE", Short: "Show the files that a node gets beside its image; with --path the content of one", Args: cobra.ExactArgs(1),
		ValidArgsFunction: m.completeNames(m.spec(object.KindNode)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := c.Sub(cmd.Context(), "GET", object.KindNode, args[0], "overlay", nil, &raw); err != nil {
				return err
			}
			var all struct {
				Files  []shownFile
				Failed []struct{ Overlay, Path, Error string }
			}
			if err := json.Unmarshal(raw, &all); err != nil {
				return err
			}
			for _, f := range all.Failed {
				if at == "" || at == f.Path {
					fmt.Fprintf(m.Stderr, "muster: %s of overlay %s: %s\n", f.Path, f.Overlay, f.Error)
				}
			}
			if at != "" {
				i := slices.IndexFunc(all.Files, func(f shownFile) bool { return f.Path == at })
				if i < 0 {
					return fmt.Errorf("node %s gets no file %s", args[0], at)
				}
				_, err := io.WriteString(m.Stdout, all.Files[i].Content)
				return err
			}
			err = m.value(raw, args[0], func() [][]string {
				rows := [][]string{{"PATH", "MODE", "OWNER", "GROUP", "BYTES", "OVERLAY"}}
				for _, f := range all.Files {
					rows = append(rows, []string{f.Path, f.Mode, orRoot(f.Owner), orRoot(f.Group), fmt.Sprint(len(f.Content)), f.Overlay})
				}
				return rows
			})
			if err == nil && len(all.Failed) > 0 {
				err = errors.New("some files cannot be rendered")
			}
			return err
		},
	}
	c.Flags().StringVar(&at, "path", "", "print the content of the file at this path")
	return c
}

func orRoot(name string) string {
	if name == "" {
		return "root"
	}
	return name
}
