package root

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// State is the agent's state directory in a booted image, on the tmpfs /run:
// an identity that no disk and no image ever holds.
const State = "/run/muster"

// Agent says how the agent runs on in the image.
type Agent struct {
	Program string   // path in the image
	Args    []string // without the program
}

// Install puts the agent where the image can run it. An agent that the image
// brings itself is used, else the running one, self, is copied below run.
func Install(newroot, run, self string, args []string) (Agent, error) {
	for _, path := range []string{"/usr/bin/muster-agent", "/usr/sbin/muster-agent"} {
		if f, err := openIn(newroot, path); err == nil {
			err := runnable(newroot, path, f)
			f.Close()
			if err == nil {
				return Agent{path, args}, nil
			}
		}
	}
	target := filepath.Join(run, "muster", "muster-agent")
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return Agent{}, err
	}
	if err := copyFile(self, target); err != nil {
		return Agent{}, fmt.Errorf("keeping the agent: %w", err)
	}
	return Agent{State + "/muster-agent", args}, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	os.Remove(to)
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// Unit makes the agent a service of systemd. It starts with the first things
// and is stopped with the last, so that a node whose boot hangs can be entered.
// Only the agent itself is killed when it is restarted: what an admin started
// through it and left running goes on.
func (a Agent) Unit(run string) error {
	text := `[Unit]
Description=Agent of the cluster head
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
ExecStart=` + a.Program
	for _, arg := range a.Args {
		text += fmt.Sprintf(" %q", strings.NewReplacer("%", "%%", "$", "$$").Replace(arg))
	}
	text += `
Restart=always
RestartSec=1
KillMode=process
TasksMax=infinity
`
	if err := underRun(run, "systemd/system/muster-agent.service", text, 0o644); err != nil {
		return err
	}
	want := filepath.Join(run, "systemd/system/sysinit.target.wants/muster-agent.service")
	if err := os.MkdirAll(filepath.Dir(want), 0o755); err != nil {
		return err
	}
	os.Remove(want)
	return os.Symlink("../muster-agent.service", want)
}

// Detach starts the agent as a process of its own, for an image without
// systemd. It outlives the exec of init, whose child it is then. To be called
// in the new root.
func (a Agent) Detach() error {
	log, err := os.OpenFile(State+"/agent.log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(a.Program, a.Args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}
