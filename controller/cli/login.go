package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"muster/shared/client"
	"muster/shared/fault"
)

// maxPassword bounds a password file, in bytes.
const maxPassword = 4 << 10

// loginFlags are those of `muster login`.
type loginFlags struct {
	user, passwordFile, fingerprint string
	identity                        string
	ssh, insecure                   bool
}

func (m *muster) loginCommand() *cobra.Command {
	var f loginFlags
	c := &cobra.Command{
		Use: "login", Short: "Log in at a head and remember it", Args: cobra.NoArgs,
		Long: `Log in at a head and remember it for the commands that follow.

On the head itself the login socket knows who you are: root may log in as any
admin, others as themselves, without a password. From elsewhere the keys of
ssh-agent are tried when one is there, for an admin whose public key the head
has (muster admin keys); else the password is asked for, never taken from the
command line. --ssh takes keys only, --password-file the password only.

A head with https signs its certificate itself. Its authority is taken from
--ca or MUSTER_CA; else its fingerprint is shown and you are asked once.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return m.login(cmd.Context(), f) },
	}
	c.Flags().StringVar(&f.user, "user", "", "the admin to log in as; you when not given")
	c.Flags().StringVar(&f.passwordFile, "password-file", "", "file whose first line is the password; - for standard input")
	c.Flags().StringVar(&f.fingerprint, "fingerprint", "", "SHA-256 of the head's authority, to trust it without being asked")
	c.Flags().BoolVar(&f.ssh, "ssh", false, "log in with a key of ssh-agent, or not at all")
	c.Flags().StringVarP(&f.identity, "identity", "i", "", "log in with this SSH key: a private key, or the public one of a key in ssh-agent")
	c.MarkFlagsMutuallyExclusive("password-file", "ssh")
	c.MarkFlagsMutuallyExclusive("password-file", "identity")
	c.Flags().BoolVar(&f.insecure, "insecure", false, "send the password to another machine even without TLS")
	return c
}

func (m *muster) login(ctx context.Context, f loginFlags) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	t, err := m.enter(ctx, c, f)
	var unknown *client.Untrusted
	if errors.As(err, &unknown) && unknown.Unknown() {
		if err := m.trust(ctx, c.Head(), f.fingerprint); err != nil {
			return err
		}
		m.client = nil // the next one trusts it
		if c, err = m.connect(); err != nil {
			return err
		}
		t, err = m.enter(ctx, c, f)
	}
	if err != nil {
		return err
	}
	if err := m.keep(c.Head(), t); err != nil {
		return err
	}
	fmt.Fprintf(m.Stderr, "logged in at %s as %s\n", c.Head(), printable(t.User))
	return nil
}

// enter gets tokens, by the socket where that is possible and no password was given.
func (m *muster) enter(ctx context.Context, c *client.Client, f loginFlags) (client.Tokens, error) {
	keys := f.ssh || f.identity != ""
	if f.passwordFile == "" && !keys && m.isLocal(c.Head()) {
		t, err := m.loginLocal(ctx, c, f.user)
		if err == nil || (!m.canAsk() && !m.agentAtHand()) {
			return t, err
		}
		if unreached(err) {
			return t, err
		}
	}
	if !f.insecure && !m.private(c.Head()) {
		return client.Tokens{}, fmt.Errorf("what lets you in would cross the network in clear: use the head's https URL, or --insecure")
	}
	user := f.user
	if own := m.localUsers(); user == "" && len(own) > 0 {
		user = own[0]
	}
	if keys || (f.passwordFile == "" && m.agentAtHand()) {
		t, err := m.loginSSH(ctx, c, user, f.identity)
		if err == nil || keys || !m.canAsk() || unreached(err) {
			return t, err
		}
		m.complain("no login with a key: " + err.Error())
	}
	pass, err := m.password(user, f.passwordFile)
	if err != nil {
		return client.Tokens{}, err
	}
	return c.LoginPassword(ctx, user, pass)
}

// unreached says whether the head was not even asked, so that no other way in
// will do better.
func unreached(err error) bool {
	var untrusted *client.Untrusted
	return errors.As(err, &untrusted) || fault.Is(err, fault.Unavailable)
}

// private says whether nobody else can read what is sent to the head.
func (m *muster) private(head string) bool {
	u, err := url.Parse(head)
	return err == nil && (u.Scheme == "https" || ownHost(u.Hostname()))
}

// terminal gives the terminal that somebody sits at, if that is our input.
func (m *muster) terminal() (*os.File, bool) {
	f, ok := m.Stdin.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

func (m *muster) canAsk() bool {
	_, ok := m.terminal()
	return ok
}

func (m *muster) password(user, file string) (string, error) {
	switch file {
	case "":
		if !m.canAsk() {
			return "", errors.New("there is no terminal to ask for the password: give --password-file FILE, or - to read it from standard input, or log in with an SSH key (--ssh)")
		}
		return m.ask("Password of " + user)
	case "-":
		return firstLine(m.Stdin)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return firstLine(f)
}

// ask asks at the terminal for what must not be seen there.
func (m *muster) ask(what string) (string, error) {
	tty, ok := m.terminal()
	if !ok {
		return "", errors.New("there is no terminal to ask at")
	}
	fmt.Fprintf(m.Stderr, "%s: ", printable(what))
	secret, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(m.Stderr)
	return string(secret), err
}

func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxPassword)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("the password cannot be read: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// trust keeps the authority of a head after somebody vouched for it: with its
// fingerprint, or by saying yes to it.
func (m *muster) trust(ctx context.Context, head, fingerprint string) error {
	ca, err := client.FetchAuthority(ctx, head)
	if err != nil {
		return err
	}
	is := client.Fingerprint(ca)
	said := strings.ToLower(strings.ReplaceAll(fingerprint, ":", ""))
	switch {
	case said != "" && said != is:
		return fmt.Errorf("the authority of %s has the fingerprint %s, not %s: somebody may be in between, or the head was set up anew", head, is, said)
	case said == "" && !m.canAsk():
		return fmt.Errorf("the authority of %s is not trusted here: compare its fingerprint on the head and give --fingerprint %s, or its ca.crt with --ca", head, is)
	case said == "":
		fmt.Fprintf(m.Stderr, "The head at %s is signed by %q, SHA-256 %s.\nTrust it from now on? [y/N] ", head, printable(ca.Subject.CommonName), is)
		answer, err := firstLine(m.Stdin)
		if err != nil || !strings.EqualFold(strings.TrimSpace(answer), "y") {
			return errors.New("not logged in: the head is not trusted")
		}
	}
	path, err := m.trustFile(head)
	if err != nil {
		return err
	}
	return writePrivate(path, client.PEM(ca))
}

func (m *muster) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "End the login at a head and forget its tokens", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			head, err := m.headURL()
			if err != nil {
				return err
			}
			// The tokens are forgotten here whatever the head says of it.
			ended := m.endLogins(cmd.Context(), head)
			was, err := m.forget(head)
			if err == nil && !was {
				fmt.Fprintf(m.Stderr, "not logged in at %s\n", head)
			}
			if err == nil && ended != nil {
				err = fmt.Errorf("the tokens are forgotten here, but good at the head until they expire: %w", ended)
			}
			return err
		},
	}
}

// endLogins tells the head that the tokens which are kept for it are to end.
func (m *muster) endLogins(ctx context.Context, head string) error {
	saved, err := m.saved(head)
	if err != nil {
		return err
	}
	cfg, err := m.tls(head)
	if err != nil {
		return err
	}
	for _, t := range saved.Sets {
		c, err := client.New(client.Options{Head: head, TLS: cfg, Tokens: t})
		if err != nil {
			return err
		}
		err = c.Logout(ctx)
		c.Close()
		if err != nil && !fault.Is(err, fault.Unauthenticated) { // those have ended already
			return err
		}
	}
	return nil
}

func (m *muster) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Show as whom the head knows you, and your roles", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			w, err := c.Whoami(cmd.Context())
			if err != nil {
				return err
			}
			return m.value(w, w.Name, func() [][]string {
				return [][]string{{"NAME", "ROLES", "HEAD"}, {w.Name, strings.Join(w.Roles, ","), c.Head()}}
			})
		},
	}
}
