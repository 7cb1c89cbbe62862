package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"muster/shared/client"
	"muster/shared/object"
)

const consoleKeys = "~. ends, ~w types where another does, ~r only watches, ~? lists this, ~~ is a ~; at the beginning of a line, or Ctrl-] instead of ~ anywhere"

func (m *muster) consoleCommand() *cobra.Command {
	var log, read, take bool
	var lines int
	c := &cobra.Command{
		Use: "console NODE", Short: "Watch a node's serial console and type on it, or read its log",
		Long: `Watch a node's serial console and type on it.

It begins with the last screen. Several may watch a console, and one of them
types. Keys for muster itself: ` + consoleKeys + `.

The console is that of the node's BMC (power_uri ipmi://…, serial-over-LAN), or
what the attribute _console_uri says: ipmi://USER:PASSWORD@ADDRESS/?cipher=3,
qemu:///PATH/OF/A/SOCKET, ssh://USER@HOST/NAME, or none. The head keeps it open
all the time and logs what it says: --log prints that, with times.`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: m.completeNames(m.spec(object.KindNode)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if lines < 0 || cmd.Flags().Changed("lines") && lines == 0 {
				return errors.New("--lines must be positive")
			}
			if log || lines > 0 {
				return m.consoleLog(cmd.Context(), args[0], lines)
			}
			mode := client.ConsoleWrite
			if take {
				mode = client.ConsoleTake
			}
			if read {
				mode = client.ConsoleRead
			}
			return m.console(cmd.Context(), args[0], mode)
		},
	}
	c.Flags().BoolVar(&log, "log", false, "print what the console has said, and end")
	c.Flags().IntVar(&lines, "lines", 0, "of the log only so many of the last lines")
	c.Flags().BoolVar(&read, "read-only", false, "only watch")
	c.Flags().BoolVar(&take, "take", false, "type, also where somebody else does")
	c.MarkFlagsMutuallyExclusive("log", "read-only", "take")
	return c
}

func (m *muster) consoleLog(ctx context.Context, node string, lines int) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	path := client.Path("node", node, "console", "log")
	if lines > 0 {
		path += "?lines=" + strconv.Itoa(lines)
	}
	_, err = c.Download(ctx, path, m.Stdout, nil)
	return err
}

// console shows a console until the user, the head or ctx ends it. Without a
// terminal it only watches.
func (m *muster) console(ctx context.Context, node, mode string) (err error) {
	in, interactive := m.terminal()
	if !interactive {
		mode = client.ConsoleRead
	}
	api, err := m.connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := api.Console(ctx, node, mode)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	left := make(chan struct{})
	if interactive {
		was, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return err
		}
		// Whatever happens, the terminal is given back as it was, with all its
		// lines, its cursor, and no colours.
		defer func() {
			io.WriteString(m.Stdout, "\x1b7\x1b[r\x1b8\x1b[0m\x1b[?25h\x1b[?7h\r\n")
			err = errors.Join(err, term.Restore(int(in.Fd()), was))
		}()
		go func() { // ends with the program: a terminal cannot be read with a deadline
			m.typing(in, c)
			close(left)
			c.Close()
		}()
	}
	err = m.watching(node, c)
	select {
	case <-left:
		return nil
	default:
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// watching prints what comes.
func (m *muster) watching(node string, c *client.Console) error {
	was := client.ConsoleState{}
	for {
		said, state, err := c.Next()
		if err != nil {
			return err
		}
		if state == nil {
			if _, err := m.Stdout.Write(said); err != nil {
				return err
			}
			continue
		}
		if state.Ended {
			return errors.New(node + ": " + state.Reason)
		}
		if *state != was {
			m.aside(standing(node, *state))
		}
		was = *state
	}
}

// standing says in words how it stands with a console.
func standing(node string, s client.ConsoleState) string {
	text := "the console of " + node
	if !s.Connected {
		return text + " is not there: " + s.Reason
	}
	switch {
	case s.Mode == client.ConsoleWrite:
		return text + ": you type; ~? lists the keys"
	case s.Writer != "":
		return text + ": " + s.Writer + " types, you watch; ~w takes over"
	case s.Reason != "":
		return text + ": you watch; " + s.Reason
	}
	return text + ": you watch"
}

// aside says something of muster's own between what the machine says.
func (m *muster) aside(text string) {
	fmt.Fprint(m.Stderr, "\r\n[muster: "+printable(text)+"]\r\n")
}

// typing sends what is typed until the user ends it.
func (m *muster) typing(in *os.File, c *client.Console) {
	k := keys{fresh: true}
	buf := make([]byte, 1024)
	for {
		n, err := in.Read(buf)
		if err != nil {
			return
		}
		for _, b := range buf[:n] {
			switch k.press(b) {
			case '.', 'q':
				return
			case 'w':
				c.Mode(client.ConsoleTake)
			case 'r':
				c.Mode(client.ConsoleRead)
			case '?':
				m.aside(consoleKeys)
			}
		}
		if k.out != nil && c.Type(k.out) != nil {
			return
		}
		k.out = nil
	}
}

// keys finds the keys that are for muster among those for the machine.
type keys struct {
	out     []byte // for the machine
	fresh   bool   // a line begins
	pending byte   // the escape key that was pressed, 0 for none
}

const (
	tilde   = '~'
	bracket = 0x1d // Ctrl-]
)

// press takes a key, and gives that of a command or 0.
func (k *keys) press(b byte) byte {
	if was := k.pending; was != 0 {
		k.pending, k.fresh = 0, false
		switch {
		case b == '.' || b == 'w' || b == 'r' || b == '?' || b == 'q' && was == bracket:
			k.fresh = true
			return b
		case b == was:
			k.out = append(k.out, b)
			return 0
		}
		k.out = append(k.out, was)
	} else if b == bracket || b == tilde && k.fresh {
		k.pending = b
		return 0
	}
	k.out = append(k.out, b)
	k.fresh = b == '\r' || b == '\n'
	return 0
}
