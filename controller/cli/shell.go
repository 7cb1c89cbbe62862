package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"muster/shared/client"
	"muster/shared/object"
)

func (m *muster) shellCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "shell NODE [-- CMD…]", Short: "Open a terminal on a node",
		Long: `Open a terminal on a node: root's login shell, or the command, whose words are
put together and given to the node's shell. It ends when what runs in it ends,
with the same exit status.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: m.completeNames(m.spec(object.KindNode)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.shell(cmd.Context(), args[0], strings.Join(args[1:], " "))
		},
	}
	c.Flags().SetInterspersed(false)
	return c
}

func (m *muster) shell(ctx context.Context, node, command string) (err error) {
	command = strings.TrimPrefix(command, "-- ")
	in, ok := m.terminal()
	out, isFile := m.Stdout.(*os.File)
	if !ok || !isFile || !term.IsTerminal(int(out.Fd())) {
		return errors.New("a shell needs a terminal on both sides: without one use muster exec -n " + node + " -- COMMAND")
	}
	c, err := m.connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t, err := c.Shell(ctx, node, sizeOf(out), m.Getenv("TERM"), command)
	if err != nil {
		return err
	}
	defer t.Close()
	defer context.AfterFunc(ctx, func() { t.Close() })()
	was, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return err
	}
	// Whatever happens, the terminal is given back as it was.
	defer func() { err = errors.Join(err, term.Restore(int(in.Fd()), was)) }()
	go follow(ctx, out, t)
	go io.Copy(t, in) // ends with the program: a terminal cannot be read with a deadline
	if _, err := io.Copy(m.Stdout, t); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	code, why := t.Exit()
	if why != "" {
		return errors.New(node + ": " + why)
	}
	if code != 0 {
		return status(code)
	}
	return nil
}

// follow tells the node when the window changes.
func follow(ctx context.Context, out *os.File, t *client.Terminal) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	defer signal.Stop(changed)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			if size := sizeOf(out); size.Rows > 0 && size.Cols > 0 && t.Resize(size) != nil {
				return
			}
		}
	}
}

// sizeOf is the zero size where it is not known.
func sizeOf(f *os.File) client.Size {
	cols, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return client.Size{}
	}
	return client.Size{Rows: uint16(rows), Cols: uint16(cols)}
}
