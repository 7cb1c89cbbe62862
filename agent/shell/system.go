package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func date(_ context.Context, e env, _ []string) error {
	_, err := fmt.Fprintln(e.Stdout, time.Now().Format(time.UnixDate))
	return err
}

func printEnv(_ context.Context, e env, _ []string) error {
	_, err := fmt.Fprintln(e.Stdout, strings.Join(os.Environ(), "\n"))
	return err
}

func dmesg(_ context.Context, e env, _ []string) error {
	buf := make([]byte, 1<<20)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buf)
	if err == nil {
		_, err = e.Stdout.Write(buf[:n])
	}
	return err
}

func free(_ context.Context, e env, _ []string) error {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return err
	}
	defer f.Close()
	return lines(f, func(s string) bool {
		key, _, _ := strings.Cut(s, ":")
		switch key {
		case "MemTotal", "MemFree", "MemAvailable", "Cached", "Shmem", "SwapTotal", "SwapFree":
			fmt.Fprintln(e.Stdout, s)
		}
		return true
	})
}

func df(_ context.Context, e env, _ []string) error {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintf(e.Stdout, "%-12s %-10s %12s %12s %4s %s\n", "device", "type", "KiB", "free", "used", "on")
	return lines(f, func(s string) bool {
		w := strings.Fields(s)
		var st unix.Statfs_t
		if len(w) < 3 || unix.Statfs(w[1], &st) != nil || st.Blocks == 0 {
			return true
		}
		kib := func(blocks uint64) uint64 { return blocks * uint64(st.Bsize) / 1024 }
		fmt.Fprintf(e.Stdout, "%-12s %-10s %12d %12d %3d%% %s\n", w[0], w[2], kib(st.Blocks), kib(st.Bavail), 100-100*st.Bfree/st.Blocks, w[1])
		return true
	})
}

func hostname(_ context.Context, e env, args []string) error {
	if len(args) > 1 {
		return unix.Sethostname([]byte(args[1]))
	}
	name, err := os.Hostname()
	if err == nil {
		_, err = fmt.Fprintln(e.Stdout, name)
	}
	return err
}

// uname prints all there is, or with -r the release.
func uname(_ context.Context, e env, args []string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	text := func(b []byte) string { return unix.ByteSliceToString(b) }
	all := []string{text(u.Sysname[:]), text(u.Nodename[:]), text(u.Release[:]), text(u.Version[:]), text(u.Machine[:])}
	out := strings.Join(all, " ")
	if len(args) > 1 {
		which, ok := map[string]int{"-s": 0, "-n": 1, "-r": 2, "-v": 3, "-m": 4}[args[1]]
		switch {
		case ok:
			out = all[which]
		case args[1] != "-a":
			return fmt.Errorf("%s is no option here; there are -a, -s, -n, -r, -v and -m", args[1])
		}
	}
	_, err := fmt.Fprintln(e.Stdout, out)
	return err
}

func sleep(ctx context.Context, _ env, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: sleep SECONDS")
	}
	seconds, err := strconv.ParseFloat(args[1], 64)
	if err != nil || seconds < 0 || seconds > 1e9 {
		return fmt.Errorf("%q is not a number of seconds", args[1])
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(seconds * float64(time.Second))):
		return nil
	}
}

func syncDisks(context.Context, env, []string) error { unix.Sync(); return nil }

func reboot(context.Context, env, []string) error {
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func poweroff(context.Context, env, []string) error {
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// kill is kill [-SIGNAL] PID….
func kill(_ context.Context, _ env, args []string) error {
	sig := syscall.SIGTERM
	args = args[1:]
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name := strings.ToUpper(args[0][1:])
		if n, err := strconv.Atoi(name); err == nil {
			sig = syscall.Signal(n)
		} else if sig = unix.SignalNum("SIG" + strings.TrimPrefix(name, "SIG")); sig == 0 {
			return fmt.Errorf("%q is not a signal", args[0][1:])
		}
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("usage: kill [-SIGNAL] PID…")
	}
	for _, a := range args {
		pid, err := strconv.Atoi(a)
		if err != nil {
			return fmt.Errorf("%q is not a process id", a)
		}
		if err := syscall.Kill(pid, sig); err != nil {
			return fmt.Errorf("%d: %w", pid, err)
		}
	}
	return nil
}

func ln(_ context.Context, e env, args []string) error {
	symbolic := len(args) > 1 && strings.HasPrefix(args[1], "-s")
	if symbolic {
		args = args[1:]
	}
	if len(args) != 3 {
		return errors.New("usage: ln [-s] TARGET NAME")
	}
	name := e.path(args[2])
	if fi, err := os.Stat(name); err == nil && fi.IsDir() {
		name = filepath.Join(name, filepath.Base(args[1]))
	}
	if symbolic {
		return os.Symlink(args[1], name)
	}
	return os.Link(e.path(args[1]), name)
}

func ps(_ context.Context, e env, _ []string) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	fmt.Fprintln(e.Stdout, "    PID    PPID S    RSS KiB COMMAND")
	for _, dir := range dirs {
		status, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue
		}
		f := map[string]string{}
		for line := range strings.Lines(string(status)) {
			key, value, _ := strings.Cut(line, ":")
			f[key] = strings.TrimSpace(value)
		}
		command, _ := os.ReadFile(dir + "/cmdline")
		text := strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " "))
		if text == "" {
			text = "[" + f["Name"] + "]"
		}
		state, _, _ := strings.Cut(f["State"], " ")
		rss, _, _ := strings.Cut(f["VmRSS"], " ")
		fmt.Fprintf(e.Stdout, "%7s %7s %s %10s %s\n", f["Pid"], f["PPid"], state, rss, text)
	}
	return nil
}

// mount is mount [-t TYPE] [-o OPTIONS] [-r] [--bind|--move] DEVICE DIR; alone
// it lists.
func mount(ctx context.Context, e env, args []string) error {
	if len(args) == 1 {
		return show("/proc/self/mounts")(ctx, e, args)
	}
	kind, options, flags := "", []string{}, uintptr(0)
	args = args[1:]
	for len(args) > 2 {
		switch {
		case args[0] == "-t":
			kind, args = args[1], args[1:]
		case args[0] == "-o":
			options, args = append(options, strings.Split(args[1], ",")...), args[1:]
		case args[0] == "-r":
			flags |= unix.MS_RDONLY
		case args[0] == "--bind":
			flags |= unix.MS_BIND
		case args[0] == "--move":
			flags |= unix.MS_MOVE
		default:
			return fmt.Errorf("%s is no option here; there are -t, -o, -r, --bind and --move", args[0])
		}
		args = args[1:]
	}
	if len(args) != 2 {
		return errors.New("usage: mount [-t TYPE] [-o OPTIONS] [-r] [--bind|--move] DEVICE DIR")
	}
	known := map[string]uintptr{
		"ro": unix.MS_RDONLY, "rw": 0, "remount": unix.MS_REMOUNT, "bind": unix.MS_BIND, "nosuid": unix.MS_NOSUID,
		"nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "noatime": unix.MS_NOATIME,
	}
	var data []string
	for _, o := range options {
		if flag, ok := known[o]; ok {
			flags |= flag
		} else {
			data = append(data, o)
		}
	}
	return unix.Mount(args[0], e.path(args[1]), kind, flags, strings.Join(data, ","))
}

// umount is umount [-l] DIR….
func umount(_ context.Context, e env, args []string) error {
	flags := 0
	for _, a := range args[1:] {
		if a == "-l" {
			flags = unix.MNT_DETACH
			continue
		}
		if err := unix.Unmount(e.path(a), flags); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	return nil
}

// ResumeFile is the pipe on which the boot waits while it is held up.
const ResumeFile = "/run/muster/resume"

// resume lets a boot go on that was stopped by muster.stop, and makes one that
// waits to try a failed step again try at once.
func resume(_ context.Context, _ env, _ []string) error {
	f, err := os.OpenFile(ResumeFile, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, os.ErrNotExist) {
		return errors.New("no boot is held up")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.WriteString(f, "\n")
	return err
}
