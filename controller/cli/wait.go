package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/fault"
	"muster/shared/hostlist"
)

// nodeStates are the states that a node may be in.
var nodeStates = []string{"down", "booting", "up", "failed", "unknown"}

// retryAfter is how long to wait until a head that went away is asked again,
// and maxMissing of how many nodes the reason is told.
const (
	retryAfter = time.Second
	maxMissing = 20
)

func (m *muster) waitCommand() *cobra.Command {
	var s selection
	var timeout time.Duration
	var until string
	c := &cobra.Command{
		Use: "wait {-n SET | -s SELECTOR | -a} {STATE… | --until SELECTOR}", Short: "Wait until nodes are in a state",
		Long: `Wait until every node of the set is in one of the states: ` + strings.Join(nodeStates, ", ") + `.

With --until they wait for more than that: whatever a selector can say of a node,
as the head learns it. -s picks the nodes once, at the beginning.

Nodes are given by name. One that does not exist yet is waited for too: with
accept_new_nodes machines make themselves known. A head that restarts meanwhile
is waited for as well.`,
		ValidArgs: nodeStates,
		RunE: func(cmd *cobra.Command, states []string) error {
			if err := checkWait(states, until, timeout); err != nil {
				return err
			}
			if _, err := m.connect(); err != nil {
				return err
			}
			names, err := m.nodes(cmd.Context(), &s, nil)
			if err != nil {
				return err
			}
			if until != "" {
				return m.waitUntil(cmd.Context(), names, until, timeout)
			}
			return m.wait(cmd.Context(), names, states, timeout)
		},
	}
	s.flags(c, m)
	c.Flags().StringVar(&until, "until", "", "wait until this selector picks every node, such as 'up and status[\"healthy\"] == true'")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up after this time")
	return c
}

func (m *muster) wait(ctx context.Context, names, states []string, timeout time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var missing []string
	var last map[string]string
	for seq := uint64(0); ; {
		now, all, err := m.client.States(limited, seq)
		switch {
		case limited.Err() != nil:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return m.waitedInVain(ctx, missing, last, states, timeout)
		case fault.Is(err, fault.Unavailable): // it may be restarting, and counts anew then
			seq = 0
			select {
			case <-limited.Done():
			case <-time.After(retryAfter):
			}
			continue
		case err != nil:
			return err
		}
		seq, last = now, all
		missing = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(states, all[n]) })
		if len(missing) == 0 {
			return nil
		}
	}
}

// waitedInVain says which nodes are missing and why, as far as the head knows.
func (m *muster) waitedInVain(ctx context.Context, missing []string, last map[string]string, states []string, timeout time.Duration) error {
	if last == nil {
		return fmt.Errorf("the head at %s did not say anything in %v", m.client.Head(), timeout)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	told := missing[:min(len(missing), maxMissing)]
	texts := make([]string, len(told))
	each(ctx, atOnce, told, func(i int, name string) error {
		texts[i] = m.stateText(ctx, name, last[name])
		return nil
	})
	for i, name := range told {
		m.complain(name + ": " + texts[i])
	}
	which := fmt.Sprintf("%d nodes are", len(missing))
	if len(missing) == 1 {
		which = "1 node is"
	}
	m.complain(fmt.Sprintf("%s not %s after %v: %s; `muster boot log NODE` tells more", which, strings.Join(states, " or "), timeout, hostlist.Fold(missing)))
	return status(1)
}

func (m *muster) stateText(ctx context.Context, name, state string) string {
	if state == "" {
		return "does not exist"
	}
	raw, err := m.client.Status(ctx, name)
	var now struct {
		State, Reason string
		Since         float64
	}
	if err != nil || json.Unmarshal(raw, &now) != nil {
		return state
	}
	text := now.State
	if now.Since > 0 {
		text += " since " + timeText(now.Since)
	}
	if now.Reason != "" {
		text += ": " + now.Reason
	}
	return text
}

func (m *muster) bootCommand() *cobra.Command {
	return group(&cobra.Command{Use: "boot", Short: "How nodes boot"}, &cobra.Command{
		Use: "log NODE", Short: "Show the steps of a node's boots, oldest first", Args: cobra.ExactArgs(1),
		ValidArgsFunction: m.completeNames(m.spec("node")),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			steps, err := c.Timeline(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return m.value(steps, args[0], func() [][]string { return timeline(steps) })
		},
	}, m.bootStatsCommand())
}

// timeline shows when each step was, how long after the one before it, and
// what went wrong.
func timeline(steps []client.Step) [][]string {
	rows := [][]string{{"BOOT", "STEP", "TIME", "AFTER", "DETAIL"}}
	for i, s := range steps {
		after := ""
		if i > 0 && steps[i-1].Boot == s.Boot {
			after = fmt.Sprintf("+%.1f s", s.Time-steps[i-1].Time)
		}
		detail := s.Detail
		if s.Error != "" {
			detail = strings.TrimSpace(detail + " FAILED: " + s.Error)
		}
		rows = append(rows, []string{fmt.Sprint(s.Boot), s.Step, timeText(s.Time), after, detail})
	}
	return rows
}
