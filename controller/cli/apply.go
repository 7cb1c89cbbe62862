package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/hostlist"
	"muster/shared/object"
	"muster/shared/wire"
)

// applyFlags say how an image is applied.
type applyFlags struct {
	selection
	in      client.Apply
	timeout time.Duration
	json    bool
	yes     bool
}

func (m *muster) imageApply() *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		Use: "apply NAME[:VERSION] {-n SET | -s SELECTOR | -a}", Short: "Change the files of running nodes to a version of an image",
		Long: `Change the files of running nodes, in place, to a version of the image: a number
or a tag, the image's content when it is left out. Only the files that differ
are changed, each at once; an older version is applied the same way.

A file that was changed on a node is told of and stays, unless --force has it
overwritten; then the exit status is 1. What nodes have by overlays, what is
mounted on them, and what makes a machine itself stays too. With --dry-run nodes
only say what they would change. On a terminal that is shown first, and asked
whether to go on, unless -y says so.

Which services have to be restarted say lines of a path and units, in the file
/etc/muster/restart of the image and in the attribute _apply_restart of nodes:
    /etc/ssh/**              ssh.service
    /etc/chrony/chrony.conf  reload:chrony.service
With --restart those of which a file changes, and which run, are restarted.

Nodes that are off come up with what their boot configuration says; where that
is another version it is told.`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: m.completeNames(m.spec(object.KindImage)),
		RunE: func(cmd *cobra.Command, args []string) error { return m.apply(cmd.Context(), &f, args[0]) },
	}
	f.selection.flags(c, m)
	c.Flags().BoolVar(&f.in.DryRun, "dry-run", false, "only tell what would be changed")
	c.Flags().BoolVar(&f.in.Force, "force", false, "overwrite changes made on nodes; compare all files where it is not known what a node runs")
	c.Flags().BoolVar(&f.in.Restart, "restart", false, "restart the services that the rules name")
	c.Flags().IntVar(&f.in.Fanout, "fanout", 0, "on how many nodes at once; 0 for 256")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "give a node up after this time; 0 for an hour")
	c.Flags().BoolVar(&f.json, "json", false, "a JSON object on each line, as the head sends them")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	return c
}

func (m *muster) apply(ctx context.Context, f *applyFlags, arg string) error {
	if f.in.Fanout < 0 || f.timeout < 0 {
		return errors.New("--fanout and --timeout must be positive")
	}
	image, version := named(arg)
	f.in.Version, f.in.Timeout = version, f.timeout.Seconds()
	c, err := m.connect()
	if err != nil {
		return err
	}
	if f.in.Nodes, err = m.nodes(ctx, &f.selection, nil); err != nil {
		return err
	}
	if !f.in.DryRun && !f.yes && !f.json && m.canAsk() {
		dry := *f
		dry.in.DryRun = true
		shown, err := m.applyOnce(ctx, c, &dry, image)
		if err != nil || shown.changes == 0 {
			return cmp.Or(err, shown.end())
		}
		fmt.Fprint(m.Stderr, "Change them? [y/N] ")
		answer, err := firstLine(m.Stdin)
		if err != nil || !strings.EqualFold(strings.TrimSpace(answer), "y") {
			return errors.New("nothing was changed")
		}
	}
	shown, err := m.applyOnce(ctx, c, f, image)
	return cmp.Or(err, shown.end())
}

func (m *muster) applyOnce(ctx context.Context, c *client.Client, f *applyFlags, image string) (*applying, error) {
	a := &applying{m: m, f: f, same: map[string][]string{}, total: len(f.in.Nodes)}
	a.progress = m.onTerminal(m.Stderr)
	err := c.ApplyImage(ctx, image, f.in, a.take)
	if a.progress {
		fmt.Fprint(m.Stderr, "\r\x1b[K")
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = a.show()
	}
	return a, err
}

// applying is what nodes answer.
type applying struct {
	m           *muster
	f           *applyFlags
	progress    bool
	shown       time.Time
	total, done int

	same    map[string][]string // nodes by what they say
	changes int                 // nodes on which something changes
	failed  int
	kept    int // nodes that keep something that is not as the version has it
}

func (a *applying) take(l client.Applied) error {
	if a.f.json {
		if _, err := a.m.Stdout.Write(l.Raw); err != nil {
			return err
		}
	}
	// A dry run's plan has the files; what follows says only that it has ended.
	if l.Plan && a.f.in.DryRun {
		a.count(l)
	}
	if l.Status == nil {
		return nil
	}
	a.done++
	if !a.f.in.DryRun || l.Error != "" || l.Off {
		a.count(l)
	}
	switch {
	case l.Error != "":
		a.failed++
	case *l.Status != 0:
		a.kept++
	}
	if now := time.Now(); a.progress && now.Sub(a.shown) >= barEvery {
		a.shown = now
		fmt.Fprintf(a.m.Stderr, "\r\x1b[K%d of %d nodes", a.done, a.total)
	}
	return nil
}

func (a *applying) count(l client.Applied) {
	if l.Added+l.Changed+l.Attributes+l.Removed > 0 {
		a.changes++
	}
	text := a.text(l)
	a.same[text] = append(a.same[text], l.Node)
}

// text is what a node says, without its name.
func (a *applying) text(l client.Applied) string {
	var b strings.Builder
	version := fmt.Sprintf("%s:%d", l.Image, l.To)
	switch {
	case l.Error != "":
		b.WriteString(moments.ReplaceAllString(strings.ReplaceAll(printable(l.Error), "node "+l.Node+" ", "node \x00 "), ""))
	case l.Off:
		b.WriteString("off, will boot " + version)
	default:
		b.WriteString(version)
		if l.From > 0 && l.From != l.To {
			fmt.Fprintf(&b, " from %d", l.From)
		}
		b.WriteString(": " + counted(l.Applied))
	}
	if l.Boots != "" && !l.Off && l.Error == "" {
		b.WriteString("; boots " + l.Boots + " next")
	}
	a.notes(&b, l)
	return b.String()
}

// counted says how many files change.
func counted(l wire.Applied) string {
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{l.Changed, "changed"}, {l.Added, "added"}, {l.Removed, "removed"}, {l.Attributes, "of owner, mode or time only"}} {
		if p.n == 0 {
			continue
		}
		files := ""
		if len(parts) == 0 {
			if files = " files"; p.n == 1 {
				files = " file"
			}
		}
		parts = append(parts, fmt.Sprintf("%d%s %s", p.n, files, p.what))
	}
	if len(parts) == 0 {
		return "nothing to change"
	}
	return strings.Join(parts, ", ")
}

// notes are the lines below.
func (a *applying) notes(b *strings.Builder, l client.Applied) {
	for _, f := range l.Files {
		fmt.Fprintf(b, "\n  %-10s  %s", printable(f.Note), printable(f.Path))
	}
	for _, f := range l.Kept {
		fmt.Fprintf(b, "\n  %-10s  %s: %s", "kept", printable(f.Path), printable(f.Note))
	}
	for _, f := range l.Left {
		fmt.Fprintf(b, "\n  %-10s  %s: %s", "left", printable(f.Path), printable(f.Note))
	}
	if l.More {
		b.WriteString("\n  and more")
	}
	switch {
	case len(l.Restarted) > 0:
		fmt.Fprintf(b, "\n  %-10s  %s", "restarted", printable(strings.Join(l.Restarted, " ")))
	case len(l.Restart) > 0 && a.f.in.Restart:
		fmt.Fprintf(b, "\n  %-10s  %s", "restart", printable(strings.Join(l.Restart, " ")))
	case len(l.Restart) > 0:
		fmt.Fprintf(b, "\n  %-10s  %s, with --restart", "restart", printable(strings.Join(l.Restart, " ")))
	}
}

// show prints what nodes said, once for those that said the same.
func (a *applying) show() error {
	if a.f.json {
		return nil
	}
	for _, text := range byNodes(a.same) {
		set := hostlist.Fold(a.same[text])
		if _, err := fmt.Fprintf(a.m.Stdout, "%s: %s\n", set, strings.ReplaceAll(text, "\x00", set)); err != nil {
			return err
		}
	}
	return nil
}

// end says what to do about the nodes that are not as the version is.
func (a *applying) end() error {
	switch {
	case a.failed > 0:
		return fmt.Errorf("%d of %d nodes were not changed as wanted", a.failed, a.total)
	case a.kept > 0:
		return fmt.Errorf("%d of %d nodes keep files that are not as the version has them; --force overwrites what was changed there", a.kept, a.total)
	}
	return nil
}
