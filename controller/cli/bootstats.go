package cli

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"muster/shared/client"
)

// bootStats is the part of the answer that the table shows.
type bootStats struct {
	Nodes      int          `json:"nodes"`
	Up         int          `json:"up"`
	Failed     int          `json:"failed"`
	UnderWay   int          `json:"under_way"`
	Never      int          `json:"never"`
	Total      bootSpread   `json:"total"`
	Steps      []bootSpread `json:"steps"`
	Stragglers []straggler  `json:"stragglers"`
}

type bootSpread struct {
	Step    string  `json:"step"`
	Count   int     `json:"count"`
	P50     float64 `json:"p50"`
	P90     float64 `json:"p90"`
	P95     float64 `json:"p95"`
	P99     float64 `json:"p99"`
	Max     float64 `json:"max"`
	Slowest string  `json:"slowest,omitempty"`
}

type straggler struct {
	Node    string  `json:"node"`
	State   string  `json:"state"`
	Seconds float64 `json:"seconds"`
	Step    string  `json:"step"`
	Took    float64 `json:"step_seconds"`
	Error   string  `json:"error,omitempty"`
}

func (m *muster) bootStatsCommand() *cobra.Command {
	var s selection
	var stragglers int
	c := &cobra.Command{
		Use: "stats [SET]…", Short: "Show how long the steps of nodes' newest boots took, and which nodes are behind",
		RunE: func(cmd *cobra.Command, args []string) error {
			if s.selector != "" && len(args)+len(s.sets) > 0 {
				return fmt.Errorf("--selector picks the nodes: leave the names out")
			}
			c, err := m.connect()
			if err != nil {
				return err
			}
			q := url.Values{"stragglers": {fmt.Sprint(stragglers)}}
			if names := strings.Join(append(args, s.sets...), ","); names != "" {
				q.Set("nodes", names)
			}
			if s.selector != "" {
				q.Set("selector", s.selector)
			}
			var got bootStats
			if err := c.Call(cmd.Context(), "GET", client.Path("nodes", "bootstats")+"?"+q.Encode(), nil, &got); err != nil {
				return err
			}
			return m.value(got, "", func() [][]string { return bootTable(got) })
		},
	}
	s.flags(c, m)
	c.Flags().IntVar(&stragglers, "stragglers", 10, "how many of the nodes that are behind are shown")
	return c
}

// bootTable shows the steps, then all of it, then who is behind.
func bootTable(s bootStats) [][]string {
	sec := func(f float64) string { return fmt.Sprintf("%.1f", f) }
	rows := [][]string{{"STEP", "NODES", "P50", "P90", "P95", "P99", "MAX", "SLOWEST"}}
	for _, is := range append(s.Steps, s.Total) {
		rows = append(rows, []string{is.Step, fmt.Sprint(is.Count), sec(is.P50), sec(is.P90), sec(is.P95), sec(is.P99), sec(is.Max), is.Slowest})
	}
	if s.Never > 0 {
		rows = append(rows, []string{"never booted", fmt.Sprint(s.Never), "", "", "", "", "", ""})
	}
	for _, b := range s.Stragglers {
		why := strings.TrimSpace(b.Step + " " + sec(b.Took) + " s " + b.Error)
		rows = append(rows, []string{b.State, b.Node, sec(b.Seconds), "", "", "", "", why})
	}
	return rows
}
