package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"muster/shared/client"
	"muster/shared/hostlist"
)

// Bounds of a command on many nodes: above how many nodes a terminal is asked
// first, and how much output is kept to be grouped, in bytes.
const (
	askAbove   = 64
	maxGrouped = 256 << 20
)

// manyFlags say how a command runs on many nodes and how that is shown.
type manyFlags struct {
	fanout     int
	timeout    time.Duration
	json, fold bool
	yes        bool
}

func (f *manyFlags) flags(c *cobra.Command) {
	c.Flags().IntVar(&f.fanout, "fanout", 0, "on how many nodes at once; 0 for all")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "kill the command after this time, such as 30s")
	c.Flags().BoolVar(&f.json, "json", false, "a JSON object with node and stdout, stderr, status or error on each line")
	c.Flags().BoolVarP(&f.fold, "group-output", "b", false, "show equal outputs once, when all nodes are done")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask, however many nodes there are")
}

func (f *manyFlags) check() error {
	if f.fanout < 0 || f.timeout < 0 {
		return errors.New("--fanout and --timeout must be positive")
	}
	if f.json && f.fold {
		return errors.New("--json and --group-output exclude each other")
	}
	return nil
}

// execMany runs a command on several nodes. Above some number of them it asks
// first, where there is somebody to ask.
func (m *muster) execMany(ctx context.Context, c *client.Client, f *manyFlags, cmd client.Many, ask int) error {
	if err := m.askFirst(cmd.Nodes, f.yes, ask); err != nil {
		return err
	}
	cmd.Fanout, cmd.Timeout = f.fanout, f.timeout.Seconds()
	o := newOutcome(m, f, len(cmd.Nodes))
	o.progress = m.onTerminal(m.Stderr) && (f.fold || !m.onTerminal(m.Stdout))
	err := c.ExecMany(ctx, cmd, o.take)
	if err != nil && ctx.Err() == nil {
		o.missing(cmd.Nodes)
	}
	return cmp.Or(err, o.end(ctx))
}

func (m *muster) onTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// outcome shows what nodes answer, and keeps what is to be said at the end.
type outcome struct {
	m        *muster
	f        *manyFlags
	total    int
	progress bool
	shown    time.Time

	done   map[string]bool // nodes where it has ended
	worst  int
	open   map[string]*prefixed        // of nodes that run, without grouping
	texts  map[string]*strings.Builder // the same, with grouping
	size   int                         // of all texts and outputs
	same   map[string][]string         // nodes by their output
	failed map[string][]string         // nodes by why
}

func newOutcome(m *muster, f *manyFlags, total int) *outcome {
	return &outcome{m: m, f: f, total: total, done: map[string]bool{}, open: map[string]*prefixed{}, texts: map[string]*strings.Builder{}, same: map[string][]string{}, failed: map[string][]string{}}
}

// take takes one line of the answer.
func (o *outcome) take(l client.Line) error {
	out := append(l.Stdout, l.Stderr...)
	var err error
	switch {
	case o.f.json:
		err = o.asJSON(l)
	case o.f.fold:
		err = o.keep(l, out)
	default:
		p := o.open[l.Node]
		if p == nil {
			p = &prefixed{w: o.m.Stdout, prefix: l.Node + ": "}
			o.open[l.Node] = p
		}
		if _, err = p.Write(out); l.Last() {
			err = errors.Join(err, p.flush())
			delete(o.open, l.Node)
		}
	}
	if l.Last() {
		o.ended(l)
	}
	return err
}

// moments are times in the head's words, which differ where the cause does not.
var moments = regexp.MustCompile(` since \d{4}-\S+Z`)

func (o *outcome) ended(l client.Line) {
	o.done[l.Node] = true
	why := l.Error
	switch {
	case l.Status == nil:
		o.worst = max(o.worst, 1)
	case *l.Status != 0 && why == "":
		why = fmt.Sprintf("exit status %d", *l.Status)
		fallthrough
	default:
		o.worst = max(o.worst, *l.Status)
	}
	if why != "" {
		why = moments.ReplaceAllString(strings.ReplaceAll(why, "node "+l.Node+" ", "node \x00 "), "")
		o.failed[why] = append(o.failed[why], l.Node)
	}
	if now := time.Now(); o.progress && now.Sub(o.shown) >= barEvery {
		o.shown = now
		fmt.Fprintf(o.m.Stderr, "\r\x1b[K%d of %d nodes", len(o.done), o.total)
	}
}

// missing tells of the nodes whose end did not come with the answer.
func (o *outcome) missing(nodes []string) {
	for _, name := range nodes {
		if !o.done[name] {
			const why = "the answer broke off before the command had ended there"
			o.failed[why] = append(o.failed[why], name)
		}
	}
}

func (o *outcome) asJSON(l client.Line) error {
	text := func(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }
	raw, err := json.Marshal(struct {
		Node   string `json:"node"`
		Stdout string `json:"stdout,omitempty"`
		Stderr string `json:"stderr,omitempty"`
		Status *int   `json:"status,omitempty"`
		Error  string `json:"error,omitempty"`
	}{l.Node, text(l.Stdout), text(l.Stderr), l.Status, l.Error})
	if err != nil {
		return err
	}
	_, err = o.m.Stdout.Write(append(raw, '\n'))
	return err
}

// keep collects output until its node is done.
func (o *outcome) keep(l client.Line, out []byte) error {
	t := o.texts[l.Node]
	if t == nil {
		t = &strings.Builder{}
		o.texts[l.Node] = t
	}
	t.Write(out)
	if o.size += len(out); o.size > maxGrouped {
		return fmt.Errorf("more than %d MiB of output cannot be grouped: leave --group-output out", maxGrouped>>20)
	}
	if !l.Last() {
		return nil
	}
	delete(o.texts, l.Node)
	text := t.String()
	if text == "" {
		return nil // there is nothing to show; a failure is told at the end
	}
	if o.same[text] != nil {
		o.size -= len(text)
	}
	o.same[text] = append(o.same[text], l.Node)
	return nil
}

// end shows what was grouped, and which nodes failed.
func (o *outcome) end(ctx context.Context) error {
	if o.progress {
		fmt.Fprint(o.m.Stderr, "\r\x1b[K")
	}
	for i, text := range byNodes(o.same) {
		gap := "\n"
		if i == 0 {
			gap = ""
		}
		if _, err := fmt.Fprintf(o.m.Stdout, "%s%s:\n%s\n", gap, hostlist.Fold(o.same[text]), strings.TrimSuffix(text, "\n")); err != nil {
			return err
		}
	}
	for _, why := range byNodes(o.failed) {
		set := hostlist.Fold(o.failed[why])
		o.m.complain(set + ": " + strings.ReplaceAll(why, "\x00", set))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if o.worst != 0 {
		return status(o.worst)
	}
	return nil
}

// byNodes gives the keys, those of the most nodes first.
func byNodes(nodes map[string][]string) []string {
	return slices.SortedFunc(maps.Keys(nodes), func(a, b string) int {
		return cmp.Or(len(nodes[b])-len(nodes[a]), hostlist.Compare(nodes[a][0], nodes[b][0]), strings.Compare(a, b))
	})
}
