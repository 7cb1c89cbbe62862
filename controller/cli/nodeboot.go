package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

func (m *muster) nodeBootCommand() *cobra.Command {
	var once string
	var rescue, cancel bool
	c := &cobra.Command{
		Use: "boot NODE {--once BOOTCONFIG | --rescue | --cancel}", Short: "Choose what a node boots the next time, and only then",
		Long: `Choose what a node boots the next time, and only then.

It stands in the node's attribute ` + object.AttrBootOnce + ` until that boot is served. With
--rescue the machine stops in a shell before it fetches an image: enter it by
muster shell NODE or muster console NODE; resume in it boots on. The node is not
switched; write muster power cycle NODE for that.`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: m.completeNames(m.spec(object.KindNode)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if once == "" && !rescue && !cancel {
				return errors.New("what shall it boot? Give --once BOOTCONFIG, --rescue or --cancel")
			}
			return m.nodeBoot(cmd.Context(), args[0], once, rescue, cancel)
		},
	}
	c.Flags().StringVar(&once, "once", "", "the boot configuration")
	c.Flags().BoolVar(&rescue, "rescue", false, "stop in a shell, with the usual boot configuration or that of --once")
	c.Flags().BoolVar(&cancel, "cancel", false, "boot as usual after all")
	c.MarkFlagsMutuallyExclusive("once", "cancel")
	c.MarkFlagsMutuallyExclusive("rescue", "cancel")
	must(c.RegisterFlagCompletionFunc("once", m.completeNames(m.spec(object.KindBootconfig))))
	return c
}

func (m *muster) nodeBoot(ctx context.Context, node, once string, rescue, cancel bool) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	if cancel {
		return c.Sub(ctx, "DELETE", object.KindNode, node, "attributes", []string{object.AttrBootOnce}, nil)
	}
	if once != "" { // a typing error must not show when the machine boots
		if _, err := client.Get[struct{ Name string }](ctx, c, object.KindBootconfig, once); err != nil {
			return err
		}
	}
	if rescue {
		once = object.Rescue + once
	}
	return c.Sub(ctx, "PATCH", object.KindNode, node, "attributes", map[string]string{object.AttrBootOnce: once}, nil)
}
