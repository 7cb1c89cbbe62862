package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// Process is a process that gives an image to the kernel, seen from the one
// that started it.
type Process struct {
	Image  string // its SHA-256
	Remote bool   // is read from a target

	device *os.File // held open, so that it is there as long as it may be wanted
	in     *os.File
	ended  chan struct{}
	err    error
}

// Start starts one and returns when the device is there. program is the
// agent's; run runs the command to its end; its messages go to console.
func Start(ctx context.Context, program string, task Task, console *os.File, run func(*exec.Cmd) error) (*Process, error) {
	stdin, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	out, stdout, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(program)
	cmd.Args = []string{"@muster-agent", Verb}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p := &Process{Image: task.Image.SHA256, Remote: task.Target != nil, in: in, ended: make(chan struct{})}
	go func() {
		p.err = run(cmd)
		stdout.Close() // so that who waits for an answer learns that none comes
		close(p.ended)
	}()
	stop := context.AfterFunc(ctx, func() { in.Close() })
	defer stop()
	var a answer
	if err = json.NewEncoder(in).Encode(task); err == nil {
		err = json.NewDecoder(out).Decode(&a)
	}
	if a.Error != "" {
		err = errors.New(a.Error)
	}
	if err == nil {
		p.device, err = os.Open(a.Device)
	}
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("the process that fetches the image: %w", err)
	}
	return p, nil
}

// Open gives the device of the image, as long as the process did its work.
func (p *Process) Open() (*os.File, error) {
	select {
	case <-p.ended:
		if p.err != nil {
			return nil, fmt.Errorf("the process that fetches the image ended: %w", p.err)
		}
	default:
	}
	return os.Open(p.device.Name())
}

// Detach lets the process live when this one ends or becomes another program.
func (p *Process) Detach() { p.in.WriteString("true\n") }

// Stop ends the process. Nothing may use the device any more.
func (p *Process) Stop() {
	p.in.Close()
	<-p.ended
	if p.device != nil {
		p.device.Close()
	}
}
