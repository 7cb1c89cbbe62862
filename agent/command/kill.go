package command

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
)

// grace is how long an aborted command may take to clean up after HUP and TERM.
const grace = 2 * time.Second

// kill ends the process and everything it started, and returns when it is gone.
// Members are found again in every round: they may be making new ones.
func (p *process) kill() {
	p.signal(syscall.SIGHUP)
	p.signal(syscall.SIGCONT) // a stopped one must wake up to hear the rest
	p.signal(syscall.SIGTERM)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < grace; {
		if p.signal(0) == 0 {
			return
		}
		<-tick.C
	}
	for range 100 {
		if p.signal(syscall.SIGKILL) == 0 {
			return
		}
		<-tick.C
	}
}

// signal sends sig to every member that still runs and gives their number. A
// member is opened before it is looked at, so that a recycled pid is never hit.
func (p *process) signal(sig syscall.Signal) int {
	n := 0
	for _, candidate := range processes() {
		if candidate.state == 'Z' || candidate.pid == os.Getpid() {
			continue
		}
		handle, err := os.FindProcess(candidate.pid)
		if err != nil {
			continue
		}
		if p.owns(candidate.pid) && handle.Signal(sig) == nil {
			n++
		}
		handle.Release()
	}
	return n
}

// owns says whether pid is of the command's session or was started with its
// environment.
func (p *process) owns(pid int) bool {
	now, ok := readStat(pid)
	if !ok || now.state == 'Z' {
		return false
	}
	if now.session == p.pid {
		return true
	}
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && bytes.Contains(env, []byte(p.cookie))
}

// stat is the part of /proc/PID/stat that is needed here.
type stat struct {
	pid, parent, session int
	state                byte
}

// processes lists what runs. A process that ends meanwhile is left out.
func processes() []stat {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var all []stat
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if s, ok := readStat(pid); ok {
				all = append(all, s)
			}
		}
	}
	return all
}

func readStat(pid int) (stat, bool) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	return parseStat(pid, raw)
}

// parseStat reads "PID (name) STATE PPID PGRP SESSION …"; the name may hold
// spaces and parentheses, so the last one counts.
func parseStat(pid int, raw []byte) (stat, bool) {
	i := bytes.LastIndexByte(raw, ')')
	if i < 0 {
		return stat{}, false
	}
	f := bytes.Fields(raw[i+1:])
	if len(f) < 4 || len(f[0]) != 1 {
		return stat{}, false
	}
	parent, err1 := strconv.Atoi(string(f[1]))
	session, err2 := strconv.Atoi(string(f[3]))
	return stat{pid: pid, parent: parent, session: session, state: f[0][0]}, err1 == nil && err2 == nil
}

func reap(pid int) {
	var ws syscall.WaitStatus
	syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
}
