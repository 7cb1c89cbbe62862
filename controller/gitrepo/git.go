package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"muster/shared/fault"
	"muster/shared/filesystem"
)

// settings is all the configuration that git sees: neither the system's nor a
// user's is read. Nothing of what a repository holds can run a program here:
// hooks are off, and filters and merge drivers need configuration.
const settings = `# Written by muster at each start.
[core]
	hooksPath = /dev/null
	fsmonitor = false
	protectNTFS = true
	protectHFS = true
	logAllRefUpdates = true
[safe]
	directory = *
[transfer]
	fsckObjects = true
	hideRefs = refs/remotes
[fetch "fsck"]
	badTimezone = ignore
	missingSpaceBeforeDate = ignore
	zeroPaddedFilemode = ignore
[receive "fsck"]
	badTimezone = ignore
	missingSpaceBeforeDate = ignore
	zeroPaddedFilemode = ignore
[fetch]
	recurseSubmodules = false
	writeCommitGraph = false
	showForcedUpdates = false
[submodule]
	recurse = false
[uploadpack]
	allowFilter = true
	allowAnySHA1InWant = true
[receive]
	autogc = false
	shallowUpdate = true
[http]
	lowSpeedLimit = 1
	lowSpeedTime = 120
	followRedirects = initial
[pack]
	threads = 2
[gc]
	autoDetach = false
[maintenance]
	auto = false
[commit]
	gpgSign = false
[advice]
	detachedHead = false
[init]
	defaultBranch = main
`

// Bounds on what one run of git may use, whatever others send it.
const (
	maxOutput = 64 << 20 // bytes that are kept
	maxStderr = 16 << 10 // bytes
	maxMemory = 4 << 30  // bytes of data
	killAfter = 2 * time.Second
	pipeWait  = 5 * time.Second
)

// git runs the distribution's git.
type git struct {
	env   []string // without what a single run adds
	ssh   string   // its command for remotes by ssh
	heads func(addr string) bool
}

// newGit writes git's configuration. heads says whether an address is one of a
// head.
func newGit(dir string, env []string, heads func(addr string) bool) (*git, error) {
	config := filepath.Join(dir, "gitconfig")
	if err := os.WriteFile(config+".new", []byte(settings), 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(config+".new", config); err != nil {
		return nil, err
	}
	// Keys are those of the user who runs the head; a host's key is learnt at
	// the first contact and held to it from then on.
	ssh := "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ConnectTimeout=20 -o ServerAliveInterval=20" +
		" -o ForwardAgent=no -o ClearAllForwardings=yes -o UserKnownHostsFile='" + strings.ReplaceAll(filepath.Join(dir, "known_hosts"), "'", `'\''`) + "'"
	return &git{ssh: ssh, heads: heads, env: append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8", "TZ=UTC",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + config, "GIT_ATTR_NOSYSTEM=1",
		"GIT_ALLOW_PROTOCOL=", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false", "SSH_ASKPASS=/bin/false", "GIT_SSH_COMMAND=" + ssh, "GIT_SSH_VARIANT=ssh",
		"GIT_LITERAL_PATHSPECS=1", "GIT_NO_REPLACE_OBJECTS=1", "GIT_NO_LAZY_FETCH=1", "GIT_OPTIONAL_LOCKS=0",
		"GIT_EDITOR=true", "GIT_SEQUENCE_EDITOR=true", "GIT_PAGER=cat", "GIT_MERGE_AUTOEDIT=no",
	}, env...)}, nil
}

// run is one run of git.
type run struct {
	dir    string // where it runs: a bare repository, or a work tree of one
	args   []string
	env    []string
	stdin  io.Reader
	stdout io.Writer // nil: what comes is given back, up to maxOutput
	disk   int64     // bytes that a file may grow to; 0 for no bound
}

// failure is git's own word on why it failed.
type failure struct {
	command string
	stderr  string
	err     error
}

func (f *failure) Error() string {
	why := f.stderr
	if why == "" {
		why = f.err.Error()
	}
	return "git " + f.command + ": " + why
}

func (f *failure) Unwrap() error { return f.err }

// status is the exit status of a failed run, -1 where it has none.
func status(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// do runs git and waits until it and all that it started are gone; the end of
// ctx ends them.
func (g *git) do(ctx context.Context, r run) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "git", r.args...)
	if cmd.Err != nil {
		return nil, fault.New(fault.Unavailable, "This head has no git: install the package git (apt-get install git).")
	}
	var out, errs bounded
	out.left, errs.left = maxOutput, maxStderr
	cmd.Dir, cmd.Env = r.dir, append(append([]string{}, g.env...), r.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r.stdin, r.stdout, &errs
	if r.stdout == nil {
		cmd.Stdout = &out
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = pipeWait
	// git takes its locks and temporary files away when it is asked to end.
	cmd.Cancel = func() error {
		pid := cmd.Process.Pid
		time.AfterFunc(killAfter, func() { cmd.Process.Kill() })
		return syscall.Kill(-pid, syscall.SIGTERM)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("git cannot be started: %w", err)
	}
	pid := cmd.Process.Pid
	limit(pid, r.disk)
	err := cmd.Wait()
	syscall.Kill(-pid, syscall.SIGKILL) // what it left behind
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, exec.ErrWaitDelay): // it ended well, only its input did not
	case err != nil:
		said := readable(errs.buf.String())
		if strings.Contains(said, "No space left on device") { // LC_ALL is C
			err = errors.Join(err, unix.ENOSPC)
		}
		return nil, filesystem.Full(&failure{command: r.args[0], stderr: said, err: err})
	case out.over:
		return nil, fmt.Errorf("git %s has more than %d MiB to say", r.args[0], maxOutput>>20)
	}
	return out.buf.Bytes(), nil
}

// limit bounds memory and file size of a process that has only just begun; its
// children inherit the bounds.
func limit(pid int, disk int64) {
	set := func(what int, n uint64) { unix.Prlimit(pid, what, &unix.Rlimit{Cur: n, Max: n}, nil) }
	set(unix.RLIMIT_DATA, maxMemory)
	set(unix.RLIMIT_CORE, 0)
	if disk > 0 {
		set(unix.RLIMIT_FSIZE, uint64(disk))
	}
}

// text is do for answers of one line.
func (g *git) text(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := g.do(ctx, run{dir: dir, args: args})
	return strings.TrimSpace(string(out)), err
}

// bounded keeps the first bytes that are written to it.
type bounded struct {
	buf  bytes.Buffer
	left int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.buf.Write(p[:n])
	b.left -= n
	b.over = b.over || n < len(p)
	return len(p), nil
}

var secretInURL = regexp.MustCompile(`(://[^/@\s:]*):[^/@\s]*@`)

// readable makes what git or a remote said fit for an error of one line:
// without passwords, control characters, and git's talk of its progress.
func readable(s string) string {
	s = secretInURL.ReplaceAllString(strings.ToValidUTF8(s, "?"), "$1:***@")
	var lines []string
	for line := range strings.SplitSeq(strings.ReplaceAll(s, "\r", "\n"), "\n") {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, line))
		if line != "" && !strings.HasPrefix(line, "hint:") && !strings.Contains(line, "% (") {
			lines = append(lines, line)
		}
	}
	if len(lines) > 8 {
		lines = lines[len(lines)-8:]
	}
	text := strings.Join(lines, "; ")
	if len(text) > 1000 {
		text = strings.ToValidUTF8(text[:1000], "") + "…"
	}
	return text
}
