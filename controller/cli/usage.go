package cli

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/shared/client"
)

// usageCommand is `cluster usage`.
func (m *muster) usageCommand() *cobra.Command {
	var from, to string
	c := m.asking("usage", "Show node-hours by state, for the last 30 days or those that are given", func(cmd *cobra.Command, c *client.Client, _ []string) error {
		q := url.Values{}
		for key, day := range map[string]string{"from": from, "to": to} {
			if day != "" {
				q.Set(key, day)
			}
		}
		var raw json.RawMessage
		if err := c.Call(cmd.Context(), "GET", client.Path("cluster", "usage")+"?"+q.Encode(), nil, &raw); err != nil {
			return err
		}
		var u nodeUsage
		if err := json.Unmarshal(raw, &u); err != nil {
			return err
		}
		if err := m.value(raw, u.period(), u.hours); err != nil || u.Jobs == nil || m.output != formTable {
			return err
		}
		return m.table(u.jobs())
	})
	c.Flags().StringVar(&from, "from", "", "first day, "+time.DateOnly)
	c.Flags().StringVar(&to, "to", "", "last day, "+time.DateOnly)
	return c
}

// nodeUsage is what the head says of a period.
type nodeUsage struct {
	From, To string
	Hours    map[string]float64 `json:"node_hours"`
	Days     []struct {
		Date  string
		Hours map[string]float64
	}
	Jobs *struct {
		Users []struct {
			Name      string
			Jobs      int
			NodeHours float64 `json:"node_hours"`
			CPUHours  float64 `json:"cpu_hours"`
		}
	}
}

func (u *nodeUsage) period() string { return u.From + " to " + u.To }

// hours is the table of node-hours by day and state.
func (u *nodeUsage) hours() [][]string {
	states := slices.Sorted(maps.Keys(u.Hours))
	rows := [][]string{{"DAY"}}
	for _, s := range states {
		rows[0] = append(rows[0], strings.ToUpper(s))
	}
	line := func(name string, hours map[string]float64) {
		row := []string{name}
		for _, s := range states {
			row = append(row, hoursText(hours[s]))
		}
		rows = append(rows, row)
	}
	for _, d := range u.Days {
		all := map[string]float64{}
		for state, h := range d.Hours {
			all[state] = h
			all["total"] += h
		}
		line(d.Date, all)
	}
	line(u.period(), u.Hours)
	return rows
}

// jobs is the table of what each user's jobs took.
func (u *nodeUsage) jobs() [][]string {
	rows := [][]string{{"USER", "JOBS", "NODE HOURS", "CPU HOURS"}}
	for _, s := range u.Jobs.Users {
		rows = append(rows, []string{s.Name, strconv.Itoa(s.Jobs), hoursText(s.NodeHours), hoursText(s.CPUHours)})
	}
	return rows
}

func hoursText(h float64) string { return strconv.FormatFloat(h, 'f', 1, 64) }
