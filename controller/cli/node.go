package cli

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

func (m *muster) statusCommand() *cobra.Command {
	return m.partCommand("status", "Show all that a node last reported, and its state", func(ctx context.Context, id string) (json.RawMessage, error) {
		return m.client.Status(ctx, id)
	})
}

func (m *muster) hardwareCommand() *cobra.Command {
	return m.partCommand("hardware", "Show what a node is made of, as it last reported", func(ctx context.Context, id string) (json.RawMessage, error) {
		n, err := client.Get[struct{ Hardware json.RawMessage }](ctx, m.client, object.KindNode, id)
		if n.Hardware == nil {
			n.Hardware = json.RawMessage("{}")
		}
		return n.Hardware, err
	})
}

// partCommand shows a part of a node, which is a JSON object.
func (m *muster) partCommand(name, short string, get func(ctx context.Context, id string) (json.RawMessage, error)) *cobra.Command {
	spec := m.spec(object.KindNode)
	return &cobra.Command{
		Use: name + " NODE", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: m.completeNames(spec),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := m.connect(); err != nil {
				return err
			}
			raw, err := get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			doc, err := parseDocument(raw)
			if err != nil {
				return err
			}
			return m.value(raw, args[0], func() [][]string { return flatten(spec, name, doc.fields, nil) })
		},
	}
}

// namingCommands are those of the naming pools' own endpoints.
func (m *muster) namingCommands() []*cobra.Command {
	push := &cobra.Command{
		Use: "push NAME", Short: "Give the pool's nodes the names that its pattern says now", Args: cobra.ExactArgs(1),
		ValidArgsFunction: m.completeNames(m.spec(object.KindNamingpool)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			return c.Call(cmd.Context(), "PUT", client.Path(object.KindNamingpool, args[0], "push"), nil, nil)
		},
	}
	info := &cobra.Command{
		Use: "info NODE", Short: "Show the index and the pattern that name a node", Args: cobra.ExactArgs(1),
		ValidArgsFunction: m.completeNames(m.spec(object.KindNode)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			var got struct {
				Index   *json.Number `json:"index"`
				Pattern string       `json:"pattern"`
			}
			if err := c.Call(cmd.Context(), "GET", client.Path("namingpools", "info", args[0]), nil, &got); err != nil {
				return err
			}
			index := ""
			if got.Index != nil {
				index = got.Index.String()
			}
			return m.value(got, got.Pattern, func() [][]string { return [][]string{{"INDEX", "PATTERN"}, {index, got.Pattern}} })
		},
	}
	return []*cobra.Command{push, info}
}
