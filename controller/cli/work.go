package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"muster/shared/client"
)

// scriptRunner puts a script from standard input into a file, runs it with its
// arguments, and removes it. A file can be any program, not only for a shell.
const scriptRunner = `f=$(mktemp) && trap 'rm -f "$f"' EXIT && cat >"$f" && chmod 700 "$f" && "$f" "$@" </dev/null`

func (m *muster) scriptCommand() *cobra.Command {
	var s selection
	var f manyFlags
	c := &cobra.Command{
		Use: "script FILE {-n SET | -a} [-- ARG…]", Short: "Run a script of this machine on nodes",
		Long: `Copy a script, or any program of at most 4 MiB, to nodes, run it there as root
with the arguments, and remove it. Output and exit status are as with muster exec
on several nodes.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			script, err := io.ReadAll(io.LimitReader(file, client.MaxManyStdin+1))
			switch {
			case err != nil:
				return err
			case len(script) > client.MaxManyStdin:
				return fmt.Errorf("%s has more than %d MiB: put it where the nodes can fetch it", args[0], client.MaxManyStdin>>20)
			case len(script) == 0:
				return fmt.Errorf("%s is empty", args[0])
			}
			words := append([]string{"/bin/sh", "-c", scriptRunner, args[0]}, args[1:]...)
			return m.onNodes(cmd.Context(), &s, &f, client.Many{Cmd: words, Stdin: script}, askAbove)
		},
	}
	s.flags(c, m)
	f.flags(c)
	return c
}

func (m *muster) rebootCommand() *cobra.Command {
	return m.downCommand("reboot", "Reboot nodes", "systemctl reboot 2>/dev/null || reboot")
}

func (m *muster) shutdownCommand() *cobra.Command {
	return m.downCommand("shutdown", "Shut nodes down and switch them off", "systemctl poweroff 2>/dev/null || poweroff")
}

// downCommand tells running systems to end. It happens a moment later, so that
// the answer still arrives.
func (m *muster) downCommand(name, short, how string) *cobra.Command {
	var s selection
	var f manyFlags
	c := &cobra.Command{
		Use: name + " {-n SET | -a | SET…}", Short: short,
		Long: short + `, through their agents, as their own systems do it. A node whose agent is
not connected is told of, and left alone: muster power acts on the machine.`,
		RunE: func(cmd *cobra.Command, sets []string) error {
			s.sets = append(s.sets, sets...)
			return m.onNodes(cmd.Context(), &s, &f, client.Many{Cmd: "(sleep 1; " + how + ") </dev/null >/dev/null 2>&1 &"}, 0)
		},
	}
	s.flags(c, m)
	f.flags(c)
	return c
}

// onNodes runs a command on the nodes of a selection.
func (m *muster) onNodes(ctx context.Context, s *selection, f *manyFlags, cmd client.Many, ask int) error {
	err := f.check()
	if err != nil {
		return err
	}
	if cmd.Nodes, err = m.nodes(ctx, s, nil); err != nil {
		return err
	}
	c, err := m.connect()
	if err != nil {
		return err
	}
	return m.execMany(ctx, c, f, cmd, ask)
}
