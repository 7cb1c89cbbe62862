package auth

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"muster/shared/fault"
)

// PAMFile is what belongs in /etc/pam.d/muster.
//
//go:embed muster-pam/pam.d-muster
var PAMFile string

const (
	helperTimeout = 10 * time.Second
	helpersAtOnce = 32  // more than one address may have under way (see perAddr)
	maxPassword   = 511 // bytes, PAM_MAX_RESP_SIZE less the ending zero
	maxHelperText = 4 << 10
)

// The exit statuses of muster-pam.
const (
	pamOK      = 0
	pamWrong   = 10
	pamAccount = 11
)

// passwords asks PAM through the helper.
type passwords struct {
	helper  string
	timeout time.Duration
	slots   chan struct{}
}

func newPasswords(helper string) (*passwords, error) {
	if helper == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("finding muster-pam beside this program: %w", err)
		}
		helper = filepath.Join(filepath.Dir(self), "muster-pam")
	}
	return &passwords{helper: helper, timeout: helperTimeout, slots: make(chan struct{}, helpersAtOnce)}, nil
}

// check is nil for the right password of a usable account. Unauthenticated
// and Forbidden faults are the user's; anything else is the head's.
func (p *passwords) check(ctx context.Context, user, pass string, from netip.Addr) error {
	if pass == "" || len(pass) > maxPassword || strings.ContainsRune(pass, 0) {
		return wrong(nil) // PAM would take an empty one for an account without
	}
	// A client that hangs up must not get an attempt that nobody counts.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.timeout)
	defer cancel()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return fault.New(fault.Unavailable, "%d passwords are being checked already; try again.", helpersAtOnce)
	}
	status, text, err := p.run(ctx, user+"\x00"+pass+"\x00"+host(from)+"\x00")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &fault.Error{Code: fault.Unavailable, Err: err, Reason: fmt.Sprintf("Passwords cannot be checked: there is no %s; install muster-pam there, or log in on the head through its socket.", p.helper)}
	case ctx.Err() != nil:
		return &fault.Error{Code: fault.Unavailable, Err: hinted(err), Reason: fmt.Sprintf("PAM did not answer within %v; the head's log has what is known of it.", p.timeout)}
	case err != nil:
		return fmt.Errorf("running %s: %w", p.helper, err)
	}
	switch status {
	case pamOK:
		return nil
	case pamWrong:
		return wrong(pamHint()) // which only the log gets: outsiders need not know how the head is set up
	case pamAccount:
		return fault.New(fault.Forbidden, "The password is right, but the operating system does not let %s in: %s.", user, strings.TrimRight(text, "."))
	}
	return &fault.Error{Code: fault.Unavailable, Err: hinted(errors.New(text)), Reason: fmt.Sprintf("PAM could not check the password: %s.", text)}
}

// wrong says no more than that; the log gets what may be the reason.
func wrong(hint error) error {
	return &fault.Error{Code: fault.Unauthenticated, Err: hint, Reason: "Wrong user name or password."}
}

func hinted(err error) error { return errors.Join(err, pamHint()) }

func host(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// pamHint says what to create where PAM has no file for the service and so
// falls back to "other", which denies everything on many systems; else nil.
func pamHint() error {
	for _, dir := range []string{"/etc/pam.d", "/usr/lib/pam.d"} {
		if _, err := os.Stat(filepath.Join(dir, "muster")); err == nil {
			return nil
		}
	}
	return errors.New("the file /etc/pam.d/muster is missing, so PAM uses its service `other`: create it with `muster-pam --pam-file > /etc/pam.d/muster`")
}

// run gives the helper's exit status (-1 when it was killed) and the first
// line it said.
func (p *passwords) run(ctx context.Context, input string) (status int, text string, err error) {
	cmd := exec.CommandContext(ctx, p.helper)
	cmd.Stdin = strings.NewReader(input)
	var said capped
	cmd.Stderr = &said
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	// PAM modules start programs of their own: all go together.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	text, _, _ = strings.Cut(strings.TrimSpace(said.String()), "\n")
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
		if text == "" {
			text = "muster-pam: " + exit.String()
		}
	}
	if cmd.ProcessState == nil {
		return -1, text, err
	}
	return cmd.ProcessState.ExitCode(), text, err
}

// capped keeps the beginning of what is written and drops the rest.
type capped struct{ bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	c.Buffer.Write(p[:min(len(p), maxHelperText-c.Len())])
	return len(p), nil
}
