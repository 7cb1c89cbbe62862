// Package command runs what the head asks for: a command on pipes or on a pty,
// its streams carried byte for byte in the frames of shared/wire.
//
// A command gets a session of its own and a clean environment. When its stream
// ends before it does, because the request was aborted or the link broke, it is
// ended with everything it started: first asked (HUP, TERM), two seconds later
// killed. A command that ends by itself may leave children behind, as over ssh;
// output they write later goes nowhere, so a daemon must redirect its own.
//
// The package must not know how a stream came about nor who may run what: the
// head that was verified by agent/link may run anything.
package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"muster/shared/wire"
)

// MaxCommands bounds how many commands run at once on a node.
const MaxCommands = 256

// Runner runs commands. Its zero value is not usable, see New.
type Runner struct {
	log   *slog.Logger
	slots chan struct{}

	// starting is held while a child is made and noted in own, so that Reap
	// never takes the status of a child that somebody waits for.
	starting sync.Mutex
	own      map[int]bool
}

// New makes a runner; each command is logged with the admin who sent it.
func New(log *slog.Logger) *Runner {
	return &Runner{log: log, slots: make(chan struct{}, MaxCommands), own: map[int]bool{}}
}

// errAborted is why a command is killed when its stream ends early.
var errAborted = errors.New("the request was aborted")

// Serve runs the command that a stream's header asked for and closes the
// stream when it has ended. It returns when nothing of it is left running in
// the agent. When ctx ends the command is killed.
func (r *Runner) Serve(ctx context.Context, stream net.Conn, e wire.Exec) {
	defer stream.Close()
	out := &output{w: stream}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	default:
		out.exit(wire.Exit{Status: statusCannot, Error: fmt.Sprintf("%d commands are running on this node already; wait until some have ended", MaxCommands)})
		return
	}
	p, err := r.start(e)
	if err != nil {
		r.log.Info("command did not start", "by", e.By, "command", title(e), "error", err)
		out.exit(wire.Exit{Status: statusOf(err), Error: err.Error()})
		return
	}
	began := time.Now()
	r.log.Info("command started", "by", e.By, "command", title(e), "pid", p.pid)
	status, err := r.run(ctx, stream, p, out)
	if err != nil {
		r.log.Info("command killed", "pid", p.pid, "reason", err)
		return
	}
	r.log.Info("command ended", "pid", p.pid, "status", status, "took", time.Since(began).Round(time.Millisecond))
	out.exit(wire.Exit{Status: status})
}

// run carries the streams of a started process until it has ended.
func (r *Runner) run(ctx context.Context, stream net.Conn, p *process, out *output) (int, error) {
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	in := newInput(p)
	var inputs, outputs sync.WaitGroup
	inputs.Go(func() {
		if err := in.receive(stream); err != nil {
			abort(err)
		}
	})
	inputs.Go(in.feed)
	for kind, file := range p.outputs() {
		outputs.Go(func() {
			if err := out.copy(kind, file, p.ended); err != nil {
				abort(fmt.Errorf("%w: %w", errAborted, err))
			}
		})
	}
	go r.wait(p)
	var err error
	select {
	case <-p.ended:
	case <-ctx.Done():
		err = context.Cause(ctx)
		stream.Close() // frees a writer that waits for the head to read
		p.kill()
		<-p.ended
	}
	p.finishOutput()
	outputs.Wait()
	in.close()
	stream.SetReadDeadline(time.Unix(1, 0)) // receive has nothing left to do
	p.close()
	inputs.Wait()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return p.status, err
}

// Reap collects children that nobody waits for: orphans that the kernel gave
// to process 1. To be called on SIGCHLD there, and nowhere else.
func (r *Runner) Reap() {
	r.starting.Lock()
	defer r.starting.Unlock()
	self := os.Getpid()
	for _, p := range processes() {
		if p.state == 'Z' && p.parent == self && !r.own[p.pid] {
			reap(p.pid)
		}
	}
}

// Run runs a command of the agent's own, so that Reap leaves it alone.
func (r *Runner) Run(cmd *exec.Cmd) error {
	r.starting.Lock()
	err := cmd.Start()
	if err != nil {
		r.starting.Unlock()
		return err
	}
	pid := cmd.Process.Pid
	r.own[pid] = true
	r.starting.Unlock()
	err = cmd.Wait()
	r.starting.Lock()
	delete(r.own, pid)
	r.starting.Unlock()
	return err
}

// title is the command in the log: its beginning, on one line.
func title(e wire.Exec) string {
	s := e.Shell
	if s == "" {
		s = fmt.Sprintf("%q", e.Argv)
	}
	if e.Login && e.Shell == "" && len(e.Argv) == 0 {
		s = "login shell"
	}
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return s
}
