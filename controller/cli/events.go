package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/fault"
)

// errEnough ends a stream of which enough was seen.
var errEnough = errors.New("enough")

func (m *muster) eventsCommand() *cobra.Command {
	var f client.Follow
	var after uint64
	var count int
	c := &cobra.Command{
		Use: "events", Short: "Show what changes, as it happens",
		Long: `Show what changes, as it happens: objects and the states of nodes, until
interrupted. With -o json each event is one line with the object as it is now.

A head that restarts is waited for, and nothing is missed meanwhile.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("after") {
				f.After = &after
			}
			if _, err := m.connect(); err != nil {
				return err
			}
			return m.follow(cmd.Context(), f, count)
		},
	}
	flags := c.Flags()
	flags.StringSliceVar(&f.Kinds, "kind", nil, "only these kinds")
	flags.StringVarP(&f.Selector, "selector", "s", "", "only nodes that this selector picks")
	flags.Uint64Var(&after, "after", 0, "begin after this revision, which an earlier event had")
	flags.IntVar(&count, "count", 0, "end after so many events")
	return c
}

// follow shows events; where the stream breaks off it goes on behind what was
// seen.
func (m *muster) follow(ctx context.Context, f client.Follow, count int) error {
	seen := 0
	for {
		err := m.client.Events(ctx, f, func(e client.Event) error {
			if err := m.showEvent(e); err != nil {
				return err
			}
			if !e.More {
				f.After = &e.Revision
			}
			if seen++; seen == count {
				return errEnough
			}
			return nil
		})
		switch {
		case errors.Is(err, errEnough):
			return nil
		case !fault.Is(err, fault.Unavailable):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryAfter):
		}
	}
}

func (m *muster) showEvent(e client.Event) error {
	var line string
	switch m.output {
	case formJSON:
		line = string(e.Raw)
	case formYAML:
		raw, err := toYAML(e.Raw)
		if err != nil {
			return err
		}
		line = "---\n" + strings.TrimSuffix(string(raw), "\n")
	case formName:
		line = printable(e.Name)
	default:
		name := e.Name
		if name == "" {
			name = e.UID
		}
		line = fmt.Sprintf("%s  %-7d %-6s %s %s", time.Now().Format(time.TimeOnly), e.Revision, e.Change, e.Kind, printable(name))
		if e.Change == "state" {
			line = strings.TrimSpace(line + ": " + e.State + " " + printable(e.Reason))
		}
	}
	_, err := fmt.Fprintln(m.Stdout, line)
	return err
}

func (m *muster) auditCommand() *cobra.Command {
	filters := map[string]*string{}
	var limit int
	c := &cobra.Command{
		Use: "audit", Short: "Show who changed what, who ran commands, who logged in",
		Long: `Show who did what: the newest records that the filters pick, oldest first.
Secrets are left out of them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{"limit": {fmt.Sprint(limit)}}
			for name, value := range filters {
				if *value != "" {
					q.Set(name, *value)
				}
			}
			if ago, err := time.ParseDuration(q.Get("since")); err == nil {
				q.Set("since", time.Now().Add(-ago).Format(time.RFC3339))
			}
			client, err := m.connect()
			if err != nil {
				return err
			}
			records, err := client.Audit(cmd.Context(), q)
			if err != nil {
				return err
			}
			return m.showRecords(records)
		},
	}
	for name, usage := range map[string]string{
		"kind": "only objects of this kind", "name": "only objects that had this name", "uid": "only the object with this UID", "admin": "only what this admin did",
		"action": "only this: create, change, delete, exec, login, …", "since": "only from then on: 2h, or a time such as 2026-01-31T12:00:00Z", "before": "only before the record with this ID",
	} {
		filters[name] = c.Flags().String(name, "", usage)
	}
	c.Flags().IntVar(&limit, "limit", 100, "how many at most")
	return c
}

func (m *muster) showRecords(raws []json.RawMessage) error {
	if m.output == formJSON || m.output == formYAML {
		return m.raw(list(raws))
	}
	rows := [][]string{{"TIME", "ADMIN", "FROM", "ACTION", "KIND", "NAME", "WHAT"}}
	for _, raw := range raws {
		var r client.Record
		if err := json.Unmarshal(raw, &r); err != nil {
			return fmt.Errorf("a record of the audit trail has another form than this program knows: %w", err)
		}
		name := r.Name
		if name == "" {
			name = r.UID
		}
		if m.output == formName {
			if _, err := fmt.Fprintln(m.Stdout, r.ID); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{timeText(r.Time), r.Admin, r.From, r.Action, r.Kind, name, what(r)})
	}
	if m.output == formName {
		return nil
	}
	return m.table(rows)
}

// what tells the changes of a record in a line.
func what(r client.Record) string {
	var parts []string
	for _, path := range slices.Sorted(maps.Keys(r.Changes)) {
		d := r.Changes[path]
		switch {
		case d.From == nil:
			parts = append(parts, path+"="+string(d.To))
		case d.To == nil:
			parts = append(parts, path+" was "+string(d.From))
		default:
			parts = append(parts, path+"="+string(d.To)+" was "+string(d.From))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.Detail)) {
		parts = append(parts, key+"="+r.Detail[key])
	}
	return strings.Join(parts, ", ")
}
