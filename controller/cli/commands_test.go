package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"
	"github.com/rogpeppe/go-internal/testscript"

	"muster/controller/cli"
	"muster/shared/client"
	"muster/shared/wire"
)

// musterCommand is `muster ARG…`, without standard input and in the directory
// of this test.
func musterCommand(ts *testscript.TestScript, neg bool, args []string) {
	env := cli.Env{Stdin: strings.NewReader(""), Stdout: ts.Stdout(), Stderr: ts.Stderr(), Getenv: ts.Getenv, Version: "v1.2.3-test"}
	if status := cli.Main(context.Background(), env, args); (status != 0) != neg {
		ts.Fatalf("exit status %d", status)
	}
}

// fingerprintCommand is `fingerprint VARIABLE`: sets it to that of the head's authority.
func fingerprintCommand(ts *testscript.TestScript, _ bool, args []string) {
	ca, err := client.FetchAuthority(context.Background(), ts.Getenv("HTTPS"))
	ts.Check(err)
	ts.Setenv(args[0], client.Fingerprint(ca))
}

// readfileCommand is `readfile VARIABLE FILE`: sets it to what the file holds.
func readfileCommand(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

// sshagentCommand is `sshagent KEY…`: an ssh-agent that has these keys runs
// until the script ends.
func sshagentCommand(ts *testscript.TestScript, _ bool, args []string) {
	dir, err := os.MkdirTemp("", "agent") // a socket's path must be short
	ts.Check(err)
	socket := dir + "/agent"
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	out, err := cmd.StdoutPipe() // it says where it listens once it does
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	})
	_, err = out.Read(make([]byte, 1))
	ts.Check(err)
	ts.Setenv("SSH_AUTH_SOCK", socket)
	for _, key := range args {
		ts.Check(ts.Exec("ssh-add", "-q", key))
	}
}

// agentCommand is `agent IP`: an agent connects from that address, which must
// be a node's, and obeys until the script ends.
func agentCommand(ts *testscript.TestScript, _ bool, args []string) {
	stop, err := startAgent(ts.Getenv("HTTP"), args[0])
	ts.Check(err)
	ts.Defer(stop)
}

// startAgent does what a node's agent does on its link, as far as commands go.
func startAgent(head, addr string) (stop func(), err error) {
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}, Timeout: 10 * time.Second}
	d := websocket.Dialer{NetDialContext: from.DialContext, HandshakeTimeout: 10 * time.Second}
	ws, resp, err := d.Dial("ws"+strings.TrimPrefix(head, "http")+wire.PathLink, http.Header{})
	if err != nil {
		if resp != nil {
			body, _ := io.ReadAll(resp.Body)
			return nil, fmt.Errorf("%w: %s", err, body)
		}
		return nil, err
	}
	if err := ws.WriteJSON(wire.Hello{Version: wire.Version, Agent: "test", BootID: "b1", InImage: true}); err != nil {
		return nil, err
	}
	var hello wire.Hello
	if err := ws.ReadJSON(&hello); err != nil {
		return nil, err
	}
	conf := yamux.DefaultConfig()
	conf.LogOutput = io.Discard
	session, err := yamux.Server(wire.Conn(ws), conf)
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			stream, err := session.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer stream.Close()
				serveStream(stream, hello.Name)
			})
		}
	})
	return func() { session.Close(); wg.Wait() }, nil
}

// serveStream runs one command. NODE is its node's name.
func serveStream(stream net.Conn, node string) {
	h, err := wire.ReadHeader(stream)
	if err != nil || h.Exec == nil {
		return
	}
	cmd := exec.Command("/bin/sh", "-c", h.Exec.Shell)
	if len(h.Exec.Argv) > 0 {
		cmd = exec.Command(h.Exec.Argv[0], h.Exec.Argv[1:]...)
	} else if h.Exec.Login {
		cmd = exec.Command("/bin/sh")
	}
	cmd.Env = append(append(os.Environ(), h.Exec.Env...), "NODE="+node, "PS1=# ")
	out := &frames{w: stream}
	input, wait, err := startCommand(cmd, h.Exec, out)
	if err != nil {
		out.exit(wire.Exit{Status: 127, Error: err.Error()})
		return
	}
	go func() {
		defer syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the head closed the stream
		defer input.Close()
		copyInput(input, stream)
	}()
	wait() // how it ended is in ProcessState
	status := cmd.ProcessState.ExitCode()
	if status < 0 {
		status = 255
	}
	out.exit(wire.Exit{Status: status})
}

func startCommand(cmd *exec.Cmd, x *wire.Exec, out *frames) (io.WriteCloser, func() error, error) {
	if !x.TTY {
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a pty's is a session of its own
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, nil, err
		}
		return in, cmd.Wait, cmd.Start()
	}
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: x.Rows, Cols: x.Cols})
	if err != nil {
		return nil, nil, err
	}
	return tty, func() error {
		io.Copy(out, tty)
		return cmd.Wait()
	}, nil
}

func copyInput(input io.WriteCloser, stream io.Reader) {
	buf := make([]byte, wire.MaxFrame)
	for {
		kind, payload, err := wire.ReadFrame(stream, buf)
		switch {
		case err != nil:
			return
		case kind == wire.FrameStdin && len(payload) == 0:
			input.Close()
		case kind == wire.FrameStdin:
			input.Write(payload)
		case kind == wire.FrameResize:
			if tty, ok := input.(*os.File); ok {
				pty.Setsize(tty, &pty.Winsize{Rows: uint16(payload[0])<<8 | uint16(payload[1]), Cols: uint16(payload[2])<<8 | uint16(payload[3])})
			}
		}
	}
}

// frames writes output as frames.
type frames struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frames) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for rest := p; len(rest) > 0; {
		n := min(len(rest), wire.MaxFrame)
		if err := wire.WriteFrame(f.w, wire.FrameStdout, rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

func (f *frames) exit(x wire.Exit) {
	raw, _ := json.Marshal(x)
	f.mu.Lock()
	defer f.mu.Unlock()
	wire.WriteFrame(f.w, wire.FrameExit, raw)
}
