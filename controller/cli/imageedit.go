package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"

	"github.com/creack/pty"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"muster/images"
	"muster/images/build"
	"muster/images/sandbox"
	"muster/shared/client"
	"muster/shared/object"
)

func (m *muster) editCommand() *cobra.Command {
	var p progressFlag
	var discard bool
	c := &cobra.Command{
		Use: "edit NAME [-- CMD…]", Short: "Change an image in a shell, or by a command",
		Long: `Open a shell in a writable copy of the image, or run the command in it, as root on
this machine. What was changed becomes the image's content when that ends with
status 0. Else nothing changes, but on a terminal you are asked first. Nothing
that was started in it goes on running.`,
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: m.completeNames(m.spec(object.KindImage)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.editImage(cmd.Context(), args[0], args[1:], discard, p)
		},
	}
	c.Flags().BoolVar(&discard, "discard", false, "throw away what is changed, to try something")
	p.flags(c)
	return c
}

func (m *muster) editImage(ctx context.Context, name string, argv []string, discard bool, p progressFlag) error {
	steps, err := m.steps(p, false)
	if err != nil {
		return err
	}
	defer steps.end()
	if os.Geteuid() != 0 {
		return sandbox.ErrRoot
	}
	c, err := m.connect()
	if err != nil {
		return err
	}
	image, err := client.Get[object.Image](ctx, c, object.KindImage, name)
	switch {
	case err != nil:
		return err
	case image.Frozen && !discard:
		return errors.New(m.spec(object.KindImage).Frozen)
	case image.Squash() == nil:
		return fmt.Errorf("the image %s has no content to begin with: muster image import or build gives it one", name)
	}
	if !discard {
		unlock, err := m.editLock(image.UID)
		if err != nil {
			return fmt.Errorf("the image %s: %w", name, err)
		}
		defer unlock()
	}
	work, remove, err := sandbox.Work(m.temp(), "muster-import-")
	if err != nil {
		return err
	}
	err = m.editIn(ctx, c, image, name, work, argv, discard, steps, p)
	return errors.Join(err, remove())
}

func (m *muster) editIn(ctx context.Context, c *client.Client, image object.Image, name, work string, argv []string, discard bool, steps *steps, p progressFlag) error {
	was, out := filepath.Join(work, "was.squashfs"), filepath.Join(work, "image.squashfs")
	steps.Step("fetch the image " + name)
	if err := m.fetchTo(ctx, c, client.Path(object.KindImage, name, "content"), was, steps.At); err != nil {
		return err
	}
	steps.end()
	s := build.Session{Image: was, Temp: m.temp(), Argv: argv, Watcher: steps, Env: append(m.proxies(), "PS1=("+printable(name)+") \\w # ")}
	done, err := m.attach(ctx, &s, discard)
	if err != nil {
		return err
	}
	info, changed, err := build.Edit(ctx, s, out)
	done()
	steps.end()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		m.complain("nothing of it was kept: the command ended with " + exit.Error())
		return status(max(exit.ExitCode(), 1))
	case err != nil:
		return err
	case discard:
		fmt.Fprintln(m.Stderr, "thrown away")
		return nil
	case !changed:
		fmt.Fprintln(m.Stderr, "nothing was changed")
		return nil
	}
	return m.commitEdit(ctx, c, image, name, info, out, p)
}

// commitEdit makes what was edited the image's content, unless somebody gave
// it another meanwhile.
func (m *muster) commitEdit(ctx context.Context, c *client.Client, image object.Image, name string, info images.Info, out string, p progressFlag) error {
	now, err := client.Get[object.Image](ctx, c, object.KindImage, name)
	if err == nil && (now.Squash() == nil || now.Squash().SHA256 != image.Squash().SHA256) {
		by := ""
		if now.Content != nil {
			by = " by " + now.Content.LastModifiedBy
		}
		err = fmt.Errorf("the image %s has got another content%s meanwhile", name, by)
	} else if err == nil {
		m.warnings(info)
		if err = m.uploadImage(ctx, name, out, p); err == nil {
			fmt.Fprintf(m.Stderr, "changed: %s\n", made(info))
			return nil
		}
	}
	// Somebody's work is in it.
	kept := fmt.Sprintf("%s/muster-edited-%s.squashfs", m.temp(), image.UID)
	if moved := os.Rename(out, kept); moved == nil {
		return fmt.Errorf("%w; what you made is in %s, for muster image import", err, kept)
	}
	return err
}

// editLock keeps two from editing an image on this machine at once.
func (m *muster) editLock(uid string) (unlock func(), err error) {
	dir := "/run/muster-edit"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, filepath.Base(uid))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lock, err := sandbox.Lock(path)
	if errors.Is(err, sandbox.ErrLocked) {
		var pid [16]byte
		n, _ := f.ReadAt(pid[:], 0)
		return nil, fmt.Errorf("it is being edited already, by process %s on this machine; one of the two would be lost", printable(string(pid[:n])))
	}
	if err != nil {
		return nil, err
	}
	text := fmt.Sprint(os.Getpid())
	if _, err = f.WriteAt([]byte(text), 0); err == nil {
		err = f.Truncate(int64(len(text)))
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return func() { lock.Close() }, nil
}

// attach gives a session this program's terminal, or its standard streams, and
// says who decides what is kept. done gives the terminal back.
func (m *muster) attach(ctx context.Context, s *build.Session, discard bool) (done func(), err error) {
	s.Keep = func(ended error) bool { return ended == nil && !discard }
	in, ok := m.terminal()
	out, isFile := m.Stdout.(*os.File)
	if !ok || !isFile || !term.IsTerminal(int(out.Fd())) {
		s.Stdin, s.Stdout, s.Stderr = m.Stdin, m.Stdout, m.Stderr
		return func() {}, nil
	}
	outer, inner, err := pty.Open()
	if err != nil {
		return nil, err
	}
	was, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, errors.Join(err, outer.Close(), inner.Close())
	}
	s.Terminal = inner
	s.Env = append(s.Env, "TERM="+m.Getenv("TERM"))
	_ = pty.InheritSize(out, outer) // an unknown size is no reason to stop
	keys, ended := make(chan []byte), make(chan struct{})
	go readKeys(in, keys)
	go typeKeys(outer, keys, ended)
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		io.Copy(out, outer) // ends when nobody has the other side any more
	}()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	go func() {
		for range resized {
			_ = pty.InheritSize(out, outer)
		}
	}()
	s.Keep = func(result error) bool {
		inner.Close()
		<-shown
		close(ended)
		if discard || result == nil {
			_ = term.Restore(int(in.Fd()), was)
			return !discard
		}
		fmt.Fprint(m.Stderr, "It did not end with status 0. Keep what was changed? [y/N] ")
		var answer []byte
		select {
		case answer = <-keys:
		case <-ctx.Done():
		}
		fmt.Fprint(m.Stderr, "\r\n")
		_ = term.Restore(int(in.Fd()), was)
		return len(answer) > 0 && (answer[0] == 'y' || answer[0] == 'Y')
	}
	return func() {
		signal.Stop(resized)
		close(resized)
		_ = term.Restore(int(in.Fd()), was)
		inner.Close()
		outer.Close()
	}, nil
}

// readKeys ends with the program: a terminal cannot be read with a deadline.
func readKeys(in io.Reader, keys chan<- []byte) {
	for {
		b := make([]byte, 1024)
		n, err := in.Read(b)
		if n > 0 {
			keys <- b[:n]
		}
		if err != nil {
			return
		}
	}
}

func typeKeys(to io.Writer, keys <-chan []byte, ended <-chan struct{}) {
	for {
		select {
		case b := <-keys:
			if _, err := to.Write(b); err != nil {
				return
			}
		case <-ended:
			return
		}
	}
}
