package command

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"muster/shared/wire"
)

// searchPath is where commands are found, as for a login of root.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is what a login would set, not what the agent happened to be
// started with; the request's own entries win.
func environment(e wire.Exec) []string {
	env := []string{"HOME=" + home(), "USER=root", "LOGNAME=root", "SHELL=" + loginShell(), "PATH=" + searchPath}
	if e.TTY {
		env = append(env, "TERM=xterm-256color")
	}
	for _, entry := range e.Env {
		name, _, _ := strings.Cut(entry, "=")
		env = slices.DeleteFunc(env, func(s string) bool { return strings.HasPrefix(s, name+"=") })
		env = append(env, entry)
	}
	return env
}

func home() string {
	if fi, err := os.Stat("/root"); err == nil && fi.IsDir() {
		return "/root"
	}
	return "/"
}

// loginShell is the shell of uid 0 in /etc/passwd, or /bin/sh.
func loginShell() string {
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return "/bin/sh"
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Split(s.Text(), ":")
		if len(fields) == 7 && fields[2] == "0" && executable(fields[6]) == nil {
			return fields[6]
		}
	}
	return "/bin/sh"
}

// lookup finds a command as execvp does: in the PATH of env unless it has a
// slash. The agent's own PATH has no say.
func lookup(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		file := name
		if !filepath.IsAbs(name) {
			file = filepath.Join(home(), name)
		}
		return file, executable(file)
	}
	path := searchPath
	for _, entry := range env {
		if p, ok := strings.CutPrefix(entry, "PATH="); ok {
			path = p
		}
	}
	denied := error(nil)
	for dir := range strings.SplitSeq(path, ":") {
		file := filepath.Join(dir, name)
		err := executable(file)
		if err == nil && filepath.IsAbs(file) {
			return file, nil
		}
		if err != nil && !isNotExist(err) && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", fmt.Errorf("%q is not in %s: %w", name, path, fs.ErrNotExist)
}

func isNotExist(err error) bool {
	errno, ok := err.(*fs.PathError)
	return ok && (errno.Err == syscall.ENOENT || errno.Err == syscall.ENOTDIR)
}

// executable says why a file cannot be run.
func executable(file string) error {
	fi, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case fi.IsDir():
		return &fs.PathError{Op: "exec", Path: file, Err: syscall.EISDIR}
	case fi.Mode()&0o111 == 0:
		return &fs.PathError{Op: "exec", Path: file, Err: syscall.EACCES}
	}
	return nil
}
