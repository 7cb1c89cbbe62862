package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

// adminCommands are those of the admins' own endpoints.
func (m *muster) adminCommands() []*cobra.Command {
	return []*cobra.Command{m.revokeCommand(), m.newtokenCommand(), m.rolesCommand()}
}

func (m *muster) revokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke NAME…", Short: "End all tokens of admins at once, on all heads", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: m.completeNames(m.spec(object.KindAdmin)),
		RunE: func(cmd *cobra.Command, names []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			return m.report(cmd.Context(), names, each(cmd.Context(), 1, names, func(_ int, name string) error {
				return c.Call(cmd.Context(), "POST", client.Path(object.KindAdmin, name, "revoke"), nil, nil)
			}))
		},
	}
}

func (m *muster) newtokenCommand() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use: "newtoken NAME", Short: "Make tokens for a tool", Args: cobra.ExactArgs(1),
		Long: `Make tokens for a tool: for yourself, or as a full admin for another. The access
token is printed, and with -o json the whole set.`,
		ValidArgsFunction: m.completeNames(m.spec(object.KindAdmin)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.newtoken(cmd.Context(), args[0], timeout)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", 0, "end all of it after this time, such as 24h; else it can be refreshed for good")
	return c
}

func (m *muster) newtoken(ctx context.Context, name string, timeout time.Duration) error {
	in := map[string]int64{}
	if timeout != 0 {
		if in["timeout"] = int64(timeout / time.Second); timeout < time.Second {
			return errors.New("--timeout must be at least 1s")
		}
	}
	c, err := m.connect()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := c.Call(ctx, "POST", client.Path(object.KindAdmin, name, "newtoken"), in, &raw); err != nil {
		return err
	}
	if m.output == formJSON || m.output == formYAML {
		return m.raw(raw)
	}
	var set struct {
		Token struct {
			Access string `json:"access_token"`
		}
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		return err
	}
	_, err = fmt.Fprintln(m.Stdout, printable(set.Token.Access))
	return err
}

func (m *muster) rolesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "roles", Short: "Show what an admin's roles may be, and what they allow", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := c.Call(cmd.Context(), "GET", client.Path("roles"), nil, &raw); err != nil {
				return err
			}
			if m.output == formJSON || m.output == formYAML {
				return m.raw(raw)
			}
			var all struct {
				Roles       []struct{ Name, Description string }
				Permissions []string
			}
			if err := json.Unmarshal(raw, &all); err != nil {
				return err
			}
			rows := [][]string{{"ROLE", "ALLOWS"}}
			for _, r := range all.Roles {
				rows = append(rows, []string{r.Name, r.Description})
			}
			if err := m.table(rows); err != nil {
				return err
			}
			_, err = fmt.Fprintf(m.Stdout, "\nSingle permissions, with - in front to take one away:\n%s\n", printable(strings.Join(all.Permissions, " ")))
			return err
		},
	}
}
