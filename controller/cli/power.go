package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/hostlist"
	"muster/shared/object"
)

type powerFlags struct {
	selection
	force   bool
	stagger time.Duration
	fanout  int
	retries int
	timeout time.Duration
	steps   []string
}

func (m *muster) powerCommand() *cobra.Command {
	verbs := []struct{ name, short string }{
		{"on", "Switch nodes on"},
		{"off", "Shut nodes down, through the agent, then the power button, then without asking"},
		{"soft", "Shut nodes down, but never take the power away from a running system"},
		{"cycle", "Switch nodes off and on again"},
		{"reset", "Press the reset button of nodes"},
		{"status", "Show which nodes are on"},
	}
	var subs []*cobra.Command
	for _, v := range verbs {
		subs = append(subs, m.powerVerb(v.name, v.short))
	}
	return group(&cobra.Command{
		Use: "power", Short: "Switch nodes on and off, and use their BMCs",
		Long: `Switch nodes on and off, through their agents and their BMCs.

Each node's result is printed as soon as it is there, and the exit status is 1
if one failed. A BMC that does not answer costs its own node's result only.`,
	}, append(append(subs, m.powerBoot()), m.bmcCommands()...)...)
}

func (m *muster) powerVerb(verb, short string) *cobra.Command {
	var f powerFlags
	c := &cobra.Command{
		Use: verb + " {-n SET | -a | SET}", Short: short, ValidArgsFunction: m.completeNames(m.spec(object.KindNode)),
		RunE: func(cmd *cobra.Command, words []string) error { return m.power(cmd.Context(), verb, &f, words) },
	}
	f.flags(c, m)
	c.Flags().IntVarP(&f.fanout, "fanout", "f", 0, "at how many nodes at once; 256 when not given")
	c.Flags().IntVar(&f.retries, "retries", 0, "how often to try again where a BMC did not answer; a reset or cycle is never sent twice")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "how long a BMC may take to answer, at most 13s; 10s when not given")
	if verb == "status" {
		return c
	}
	c.Flags().DurationVar(&f.stagger, "stagger", 0, "wait this long between one node and the next, such as 200ms, for the sake of fuses")
	if verb == "off" || verb == "cycle" {
		c.Flags().BoolVar(&f.force, "force", false, "take the power away without asking the system")
		c.Flags().StringSliceVar(&f.steps, "steps", nil, "what to try in which order, each with its time, such as agent:5m,soft:1m,hard")
	}
	return c
}

func (m *muster) power(ctx context.Context, verb string, f *powerFlags, words []string) error {
	if f.fanout < 0 || f.stagger < 0 || f.retries < 0 || f.timeout < 0 {
		return errors.New("--fanout, --stagger, --retries and --timeout must be positive")
	}
	steps, err := parseSteps(f.steps)
	if err != nil {
		return err
	}
	c, err := m.connect()
	if err != nil {
		return err
	}
	names, err := m.nodes(ctx, &f.selection, words)
	if err != nil {
		return err
	}
	o := client.PowerOrder{Nodes: names, State: verb, Force: f.force, Steps: steps, Limit: f.fanout, Stagger: f.stagger.Seconds(), Retries: f.retries, Timeout: f.timeout.Seconds()}
	bad, came := false, 0
	var printed error
	err = c.Power(ctx, o, func(r client.PowerResult) {
		if r.Pending == "" {
			came++
			bad = bad || r.Error != ""
		}
		printed = errors.Join(printed, m.powerLine(r))
	})
	if err = errors.Join(err, printed); err != nil {
		return err
	}
	if came == 0 {
		return fmt.Errorf("the head said nothing of %s", hostlist.Fold(names))
	}
	if bad {
		return status(1)
	}
	return nil
}

// powerLine prints a result as it comes.
func (m *muster) powerLine(r client.PowerResult) error {
	if m.chosen && m.output == "json" {
		raw, err := json.Marshal(r)
		if err == nil {
			_, err = fmt.Fprintln(m.Stdout, string(raw))
		}
		return err
	}
	text := r.State
	switch {
	case r.Error != "":
		text = bmcText(r.State) + " (" + r.Error + ")"
	case r.Pending != "":
		text = "… still at the step " + r.Pending
	case r.Step != "":
		text += " (" + r.Step + ")"
	}
	_, err := fmt.Fprintln(m.Stdout, r.Node+": "+printable(text))
	return err
}

func bmcText(state string) string {
	if state == "" {
		return "unknown"
	}
	return state
}

// parseSteps reads agent:5m,soft,hard.
func parseSteps(words []string) ([]any, error) {
	var out []any
	for _, w := range words {
		name, limit, timed := strings.Cut(w, ":")
		if !slices.Contains([]string{"agent", "soft", "hard"}, name) {
			return nil, fmt.Errorf("--steps: %q is none of agent, soft, hard", name)
		}
		step := map[string]any{"step": name}
		if timed {
			d, err := time.ParseDuration(limit)
			if err != nil || d <= 0 {
				return nil, fmt.Errorf("--steps: %q is no time such as 90s or 5m", limit)
			}
			step["timeout"] = d.Seconds()
		}
		out = append(out, step)
	}
	return out, nil
}

// bootDevices are what a node can be told to boot from.
var bootDevices = []string{"pxe", "disk", "cdrom", "bios", "none"}

func (m *muster) powerBoot() *cobra.Command {
	var s selection
	var always, uefi bool
	var fanout int
	c := &cobra.Command{
		Use: "boot DEVICE {-n SET | -a | SET}", Short: "Choose what nodes boot from the next time", Args: cobra.MinimumNArgs(1), ValidArgs: bootDevices,
		Long: `Choose what nodes boot from the next time: ` + strings.Join(bootDevices, ", ") + `.

bios is the firmware's setup, and none gives the choice back to it. The nodes are
not switched; write muster power cycle -n SET for that.`,
		RunE: func(cmd *cobra.Command, words []string) error {
			if !slices.Contains(bootDevices, words[0]) {
				return fmt.Errorf("%q is none of %s", words[0], strings.Join(bootDevices, ", "))
			}
			if fanout < 1 {
				return errors.New("--fanout must be positive")
			}
			ctx := cmd.Context()
			api, err := m.connect()
			if err != nil {
				return err
			}
			names, err := m.nodes(ctx, &s, words[1:])
			if err != nil {
				return err
			}
			in := map[string]any{"device": words[0], "persistent": always, "uefi": uefi}
			return m.report(ctx, names, each(ctx, fanout, names, func(_ int, name string) error {
				return api.Call(ctx, "PUT", client.Path(object.KindNode, name, "boot_device"), in, nil)
			}))
		},
	}
	s.flags(c, m)
	c.Flags().BoolVar(&always, "always", false, "from now on, not only once")
	c.Flags().BoolVar(&uefi, "uefi", false, "by UEFI, not the BIOS's way")
	c.Flags().IntVarP(&fanout, "fanout", "f", atOnce, "at how many nodes at once")
	return c
}
