// Package cli is the admin's command line.
//
// It is a client like any other: everything it does goes through the head's
// REST API by shared/client, and the commands of the kinds come from their
// declarations in shared/object. It must not import the head's own parts; the
// command that starts the head is handed in by main.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"muster/shared/client"
	"muster/shared/kind"
	"muster/shared/object"
)

// Env is what the command line sees of the process that it runs in.
type Env struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
	// Version is that of the build.
	Version string
}

// Main runs one command line (without the program's name) and gives the exit
// status: 0, or 1 after one line on stderr that says what to do; the status of
// what ran where exec or shell got that far. Ending ctx interrupts it. Extra
// commands are added to the tree.
func Main(ctx context.Context, env Env, args []string, extra ...*cobra.Command) int {
	m := &muster{Env: env, specs: object.All()}
	root := m.root(extra)
	root.SetArgs(joinBooleans(root, args))
	return m.exit(root.ExecuteContext(ctx))
}

// muster is one run of the command line.
type muster struct {
	Env
	specs []*kind.Spec

	head   string // --head
	ca     string // --ca
	output string // --output
	chosen bool   // it was given

	client *client.Client // made by connect
}

// status ends the program with another status than 1; whatever there is to say
// has been said.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func (m *muster) exit(err error) int {
	if m.client != nil {
		m.client.Close()
	}
	var s status
	switch {
	case err == nil:
		return 0
	case errors.As(err, &s):
		return int(s)
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	}
	m.complain(err.Error() + hint(err))
	return 1
}

// hint says what to do about an error that does not say it itself.
func hint(err error) string {
	var untrusted *client.Untrusted
	if errors.As(err, &untrusted) && untrusted.Unknown() {
		return "; run `muster login` to look at it and trust it, or name its ca.crt with --ca"
	}
	return ""
}

// complain writes one line to stderr.
func (m *muster) complain(text string) {
	fmt.Fprintln(m.Stderr, "muster: "+printable(text))
}

func (m *muster) root(extra []*cobra.Command) *cobra.Command {
	root := group(&cobra.Command{
		Use:   "muster",
		Short: "Turn a room of bare machines into a cluster",
		Long: `Turn a room of bare machines into a cluster.

Sets of nodes are written n[0-3,7] and given as arguments or with -n; -a stands
for all nodes. Objects are named by their name or UID, nodes also by MAC and IP.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       m.Version,
	})
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		f := cmd.Flags().Lookup("output")
		m.chosen = f != nil && f.Changed
		return m.checkOutput()
	}
	flags := root.PersistentFlags()
	flags.StringVar(&m.head, "head", "", "URL of the head; MUSTER_HEAD or the local head when not given")
	flags.StringVar(&m.ca, "ca", "", "file with the authority that signed the head's certificate (MUSTER_CA)")
	flags.StringVarP(&m.output, "output", "o", "table", "table, json, yaml or name")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp)))
	root.SetOut(m.Stdout)
	root.SetErr(m.Stderr)
	root.SetIn(m.Stdin)
	root.SetFlagErrorFunc(flagError)

	root.AddGroup(&cobra.Group{ID: "kinds", Title: "Objects:"}, &cobra.Group{ID: "nodes", Title: "Nodes at work:"}, &cobra.Group{ID: "access", Title: "Access:"})
	for _, spec := range m.specs {
		root.AddCommand(in("kinds", m.kindCommand(spec)))
	}
	for _, c := range []*cobra.Command{m.execCommand(), m.scriptCommand(), m.cpCommand(), m.rebootCommand(), m.shutdownCommand(), m.shellCommand(), m.consoleCommand(), m.waitCommand(), m.bootCommand(), m.powerCommand(), m.eventsCommand()} {
		root.AddCommand(in("nodes", c))
	}
	for _, c := range []*cobra.Command{m.auditCommand(), m.loginCommand(), m.logoutCommand(), m.whoamiCommand()} {
		root.AddCommand(in("access", c))
	}
	root.AddCommand(m.databaseCommand(), m.simulateCommand(), m.versionCommand())
	root.AddCommand(extra...)
	return root
}

func in(id string, c *cobra.Command) *cobra.Command {
	c.GroupID = id
	return c
}

func (m *muster) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(m.Stdout, m.Version)
			return err
		},
	}
}

// group makes a command that only holds others: alone it shows its help, and
// an unknown word is an error with what may have been meant.
func group(c *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownWord(cmd, args[0])
	}
	c.ValidArgsFunction = cobra.NoFileCompletions
	c.AddCommand(subs...)
	return c
}

func unknownWord(cmd *cobra.Command, word string) error {
	if cmd.SuggestionsMinimumDistance == 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	text := fmt.Sprintf("%s has no command %q", cmd.CommandPath(), word)
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		return errors.New(text + "; did you mean " + strings.Join(near, " or ") + "?")
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return errors.New(text + "; it has " + strings.Join(names, ", "))
}

// flagError says which flag may have been meant.
func flagError(cmd *cobra.Command, err error) error {
	// A group takes no words but those of its commands: this one is none, and
	// its flags say nothing.
	if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 {
		return unknownWord(cmd, words[0])
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	}
	best, least := "", 3
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := distance(f.Name, unknown.GetSpecifiedName()); d < least && !f.Hidden {
			best, least = f.Name, d
		}
	})
	if best == "" {
		return fmt.Errorf("%s has no flag --%s; see %s --help", cmd.CommandPath(), unknown.GetSpecifiedName(), cmd.CommandPath())
	}
	return fmt.Errorf("%s has no flag --%s; did you mean --%s?", cmd.CommandPath(), unknown.GetSpecifiedName(), best)
}

// joinBooleans lets a boolean field's value stand in a word of its own, as
// that of every other field may: --frozen true.
func joinBooleans(root *cobra.Command, args []string) []string {
	cmd, _, err := root.Find(args)
	if err != nil {
		return args
	}
	var out []string
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			return append(out, args[i:]...)
		}
		if isBoolField(cmd, args[i]) && i+1 < len(args) && (args[i+1] == "true" || args[i+1] == "false") {
			out = append(out, args[i]+"="+args[i+1])
			i++
			continue
		}
		out = append(out, args[i])
	}
	return out
}

func isBoolField(cmd *cobra.Command, arg string) bool {
	name, ok := strings.CutPrefix(arg, "--")
	f := cmd.Flags().Lookup(name)
	if !ok || f == nil {
		return false
	}
	field, ok := f.Value.(*fieldFlag)
	return ok && field.shape == isBool
}

func must(err error) {
	if err != nil {
		panic(err) // a mistake in the command tree, which every test builds
	}
}
