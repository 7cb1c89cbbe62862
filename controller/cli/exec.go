package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

// maxOutLine is how long a line may get until it is cut, in bytes.
const maxOutLine = 64 << 10

type execFlags struct {
	selection
	manyFlags
	stdin  bool
	chosen bool // whether --stdin was given at all
}

func (m *muster) execCommand() *cobra.Command {
	var f execFlags
	c := &cobra.Command{
		Use: "exec {-n SET | -a | SET} -- CMD…", Short: "Run a command on nodes",
		Long: `Run a command on nodes, as root.

A command of one word is given to the node's shell, so that
    muster exec -n n0 -- 'ls /tmp | wc -l'
works. Several words are run as they are, no shell takes them apart:
    muster exec -n n0 -- touch 'a file'

On one node the output comes byte for byte, and the exit status is the
command's own. On several nodes each line begins with the node's name, lines
come as the nodes write them, and the exit status is the worst one. With
--group-output equal outputs are shown once, under the names of their nodes, the
most common one first. Standard error comes with the output. Interrupting muster
kills the commands.

A pipe or a file on standard input is sent to the command where it runs on one
node; for several nodes say --stdin. Inside a loop over a file's lines write
</dev/null, as with ssh, so that the command does not read them.`,
		ValidArgsFunction: m.completeNames(m.spec(object.KindNode)),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.chosen = cmd.Flags().Changed("stdin")
			return m.exec(cmd.Context(), &f, args)
		},
	}
	f.selection.flags(c, m)
	f.manyFlags.flags(c)
	c.Flags().BoolVar(&f.stdin, "stdin", false, "send standard input to the command; on one node a pipe or file is sent anyway unless --stdin=false")
	c.Flags().SetInterspersed(false) // flags behind the first word are the command's
	return c
}

// split takes the sets apart from the command. Without -n or -a the sets come
// first, up to the two dashes.
func (f *execFlags) split(args []string) (sets, cmd []string, err error) {
	if !f.given() {
		dashes := slices.Index(args, "--")
		if dashes <= 0 {
			return nil, nil, errors.New("on which nodes? Write muster exec -n SET -- COMMAND")
		}
		sets, args = args[:dashes], args[dashes+1:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return nil, nil, errors.New("what is to be run? Write muster exec -n SET -- COMMAND")
	}
	return sets, args, nil
}

func (m *muster) exec(ctx context.Context, f *execFlags, args []string) error {
	sets, words, err := f.split(args)
	if err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	cmd := client.Command{Cmd: words, Timeout: f.timeout.Seconds()}
	if len(words) == 1 {
		cmd.Cmd = words[0]
	}
	c, err := m.connect()
	if err != nil {
		return err
	}
	names, err := m.nodes(ctx, &f.selection, sets)
	if err != nil {
		return err
	}
	if len(names) == 1 && !f.json {
		if f.stdin || (!f.chosen && m.fed()) {
			cmd.Stdin = func() io.Reader { return m.Stdin }
		}
		return m.execOne(ctx, c, names[0], cmd)
	}
	many := client.Many{Nodes: names, Cmd: cmd.Cmd}
	if f.stdin {
		if many.Stdin, err = m.input(); err != nil {
			return err
		}
	}
	return m.execMany(ctx, c, &f.manyFlags, many, askAbove)
}

// fed says whether somebody has put a pipe or a file on standard input: that
// it was lost on the way to one command would go unnoticed.
func (m *muster) fed() bool {
	f, ok := m.Stdin.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && (info.Mode().IsRegular() || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0)
}

// input reads standard input for several nodes, which do not read at the same
// pace.
func (m *muster) input() ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(m.Stdin, client.MaxManyStdin+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("standard input: %w", err)
	case len(raw) > client.MaxManyStdin:
		return nil, fmt.Errorf("standard input has more than %d MiB, which is too much for several nodes: put it where they can fetch it", client.MaxManyStdin>>20)
	}
	return raw, nil
}

func (m *muster) execOne(ctx context.Context, c *client.Client, name string, cmd client.Command) error {
	code, why, err := c.Exec(ctx, name, cmd, m.Stdout)
	if err != nil {
		return err
	}
	if why != "" {
		m.complain(name + ": " + why)
	}
	if code != 0 {
		return status(code)
	}
	return nil
}

// prefixed writes whole lines, each with the node's name before it.
type prefixed struct {
	w      io.Writer
	prefix string
	rest   []byte // of a line that has not ended
}

func (p *prefixed) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	var out []byte
	for {
		end := bytes.IndexByte(p.rest, '\n')
		if end < 0 && len(p.rest) < maxOutLine {
			break
		}
		if end < 0 {
			end = len(p.rest)
		}
		out = append(append(append(out, p.prefix...), p.rest[:end]...), '\n')
		p.rest = p.rest[min(end+1, len(p.rest)):]
	}
	if len(out) == 0 {
		return len(b), nil
	}
	_, err := p.w.Write(out)
	return len(b), err
}

// flush writes what follows the last line's end.
func (p *prefixed) flush() error {
	if len(p.rest) == 0 {
		return nil
	}
	_, err := p.Write([]byte{'\n'})
	return err
}
