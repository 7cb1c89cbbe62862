package cli

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

// serviceStatus is one of a head's services.
type serviceStatus struct {
	Name        string `json:"name"`
	Status      string `json:"status"`
	Enabled     bool   `json:"enabled"`
	Description string `json:"description"`
	Restarting  bool   `json:"restarting,omitempty"`
}

// headCommands are those of the heads' own endpoints.
func (m *muster) headCommands() []*cobra.Command {
	services := m.asking("services", "Show the services of the head and whether they are up", func(cmd *cobra.Command, c *client.Client, _ []string) error {
		return m.services(cmd, c, "GET", nil)
	})
	service := m.asking("service ACTION[,ACTION…] NAME…", "Start, stop, restart, reload, enable or disable services of the head", func(cmd *cobra.Command, c *client.Client, args []string) error {
		return m.services(cmd, c, "POST", map[string]any{"status": args[0], "services": args[1:]})
	})
	service.Args = cobra.MinimumNArgs(2)
	service.ValidArgs = []string{"start", "stop", "restart", "reload", "enable", "disable"}
	return []*cobra.Command{services, service, m.headLog(), m.downHeads(), m.unusedFiles()}
}

// asking makes a command without arguments that asks the head.
func (m *muster) asking(use, short string, run func(cmd *cobra.Command, c *client.Client, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			return run(cmd, c, args)
		},
	}
}

func (m *muster) services(cmd *cobra.Command, c *client.Client, method string, body any) error {
	var raw json.RawMessage
	if err := c.Call(cmd.Context(), method, client.Path("head", "services"), body, &raw); err != nil {
		return err
	}
	var list []serviceStatus
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	var names []string
	rows := [][]string{{"NAME", "STATUS", "AT START", "DOES"}}
	for _, s := range list {
		at := "enabled"
		if !s.Enabled {
			at = "disabled"
		}
		if s.Restarting {
			s.Status = "restarting"
		}
		names = append(names, s.Name)
		rows = append(rows, []string{s.Name, s.Status, at, s.Description})
	}
	return m.value(raw, strings.Join(names, "\n"), func() [][]string { return rows })
}

func (m *muster) headLog() *cobra.Command {
	lines, level := 200, ""
	c := &cobra.Command{
		Use: "log [HEAD]", Short: "Show the last lines of a head's log", Args: cobra.MaximumNArgs(1), ValidArgsFunction: m.completeNames(m.spec(object.KindHead)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				var here struct{ UID string }
				if err := c.Call(cmd.Context(), "GET", client.Path("cluster", "database"), nil, &here); err != nil {
					return err
				}
				args = []string{here.UID}
			}
			q := url.Values{"lines": {strconv.Itoa(lines)}}
			if level != "" {
				q.Set("level", level)
			}
			var raw json.RawMessage
			if err := c.Call(cmd.Context(), "GET", client.Path("cluster", "head", args[0], "log")+"?"+q.Encode(), nil, &raw); err != nil {
				return err
			}
			if m.output == formJSON || m.output == formYAML {
				return m.raw(raw)
			}
			var log struct {
				Lines []struct{ ISO, Level, Text string }
			}
			if err := json.Unmarshal(raw, &log); err != nil {
				return err
			}
			for _, l := range log.Lines {
				if _, err := fmt.Fprintln(m.Stdout, l.ISO, strings.ToUpper(l.Level), printable(l.Text)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().IntVar(&lines, "lines", lines, "how many")
	c.Flags().StringVar(&level, "level", "", "only lines of at least this level: debug, info, warn or error")
	return c
}

func (m *muster) downHeads() *cobra.Command {
	remove := false
	c := m.asking("down", "Show the heads that do not answer, or delete them", func(cmd *cobra.Command, c *client.Client, _ []string) error {
		return m.listing(cmd, c, method(remove), client.Path("heads", "down"), []string{"UID", "NAME", "REASON"}, func(o map[string]any) []string {
			return []string{text(o["uid"]), text(o["name"]), text(o["reason"])}
		})
	})
	c.Flags().BoolVar(&remove, "delete", false, "delete them")
	return c
}

func (m *muster) unusedFiles() *cobra.Command {
	remove := false
	c := m.asking("unused", "Show the files of the head that nothing uses any more, or remove them", func(cmd *cobra.Command, c *client.Client, _ []string) error {
		return m.listing(cmd, c, method(remove), client.Path("head", "files", "unused"), []string{"SHA256", "BYTES"}, func(o map[string]any) []string {
			return []string{text(o["sha256"]), text(o["size"])}
		})
	})
	c.Flags().BoolVar(&remove, "delete", false, "remove them")
	return c
}

func method(remove bool) string {
	if remove {
		return "DELETE"
	}
	return "GET"
}

// listing shows a list of objects that the head gives.
func (m *muster) listing(cmd *cobra.Command, c *client.Client, method, path string, heading []string, row func(map[string]any) []string) error {
	var list []map[string]any
	if err := c.Call(cmd.Context(), method, path, nil, &list); err != nil {
		return err
	}
	rows := [][]string{heading}
	var names []string
	for _, o := range list {
		rows = append(rows, row(o))
		names = append(names, row(o)[0])
	}
	if m.output == formName && len(names) == 0 {
		return nil
	}
	return m.value(list, strings.Join(names, "\n"), func() [][]string { return rows })
}

func text(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// clusterCommands are those of the cluster's own endpoints.
func (m *muster) clusterCommands() []*cobra.Command {
	now := m.asking("time", "Show the head's clock", func(cmd *cobra.Command, c *client.Client, _ []string) error {
		var got struct {
			Time json.Number `json:"time"`
			ISO  string      `json:"iso"`
		}
		if err := c.Call(cmd.Context(), "GET", client.Path("cluster", "time"), nil, &got); err != nil {
			return err
		}
		return m.value(got, got.ISO, func() [][]string { return [][]string{{"TIME", "SECONDS"}, {got.ISO, got.Time.String()}} })
	})
	return []*cobra.Command{now, m.usageCommand()}
}

// databaseCommand is for what the head's database needs now and then.
func (m *muster) databaseCommand() *cobra.Command {
	look := false
	clean := m.asking("clean", "Put indexes right, drop references to what is no more, remove what nothing uses", func(cmd *cobra.Command, c *client.Client, _ []string) error {
		how := "POST"
		if look {
			how = "GET"
		}
		var raw json.RawMessage
		if err := c.Call(cmd.Context(), how, client.Path("database", "clean"), nil, &raw); err != nil {
			return err
		}
		var found map[string]json.RawMessage
		if err := json.Unmarshal(raw, &found); err != nil {
			return err
		}
		rows := [][]string{{"WHAT", "COUNT"}}
		for _, key := range []string{"references", "kept", "keys", "clashes", "hints", "telemetry", "files"} {
			var list []json.RawMessage
			json.Unmarshal(found[key], &list) // none, where an older head does not know it
			rows = append(rows, []string{key, strconv.Itoa(len(list))})
		}
		return m.value(raw, "", func() [][]string { return rows })
	})
	clean.Flags().BoolVar(&look, "dry-run", false, "only say what would be done")
	info := m.asking("info", "Show the kind and size of the head's database", func(cmd *cobra.Command, c *client.Client, _ []string) error {
		var got map[string]any
		if err := c.Call(cmd.Context(), "GET", client.Path("cluster", "database"), nil, &got); err != nil {
			return err
		}
		return m.value(got, text(got["type"]), func() [][]string {
			rows := [][]string{{"FIELD", "VALUE"}}
			for _, key := range []string{"type", "status", "revision", "size", "head", "uid", "heads", "version"} {
				rows = append(rows, []string{key, text(got[key])})
			}
			return rows
		})
	})
	return group(&cobra.Command{Use: "database", Short: "Keep the head's database in order"}, clean, info)
}
