package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Head is a muster head inside a lab's network.
type Head struct {
	URL     string // of the API, from inside the network
	Data    string // its data directory, fresh when it was made
	LogFile string

	network *Network
	program string
	flags   []string
	process *process
}

// How long a head may take to answer after its start, and to end after SIGTERM.
const (
	headReady = 30 * time.Second
	headStop  = 30 * time.Second
)

// NewHead is a head that is not running yet. program is bin/muster; its files
// go to dir. flags are added to what muster serve is started with.
func (n *Network) NewHead(program, dir string, flags ...string) *Head {
	address := HeadAddress.Addr().String()
	data := filepath.Join(dir, "head")
	return &Head{
		URL: "http://" + address + ":8080", Data: data, LogFile: filepath.Join(dir, "head.log"),
		network: n, program: program,
		flags: append([]string{"serve", "--data", data, "--http", address + ":8080", "--https", address + ":8443"}, flags...),
	}
}

// Start starts the head and waits until it answers.
func (h *Head) Start(ctx context.Context) error {
	if err := os.MkdirAll(h.Data, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(h.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := h.network.Command(h.program, h.flags...)
	cmd.Env, cmd.Stdout, cmd.Stderr = h.environment(), log, log
	if h.process, err = start(cmd); err != nil {
		return fmt.Errorf("starting the head: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, headReady)
	defer cancel()
	if err := h.waitReady(ctx); err != nil {
		h.Kill()
		return fmt.Errorf("the head did not come up: %w; the end of its log:\n%s", err, h.LogTail(20))
	}
	return nil
}

func (h *Head) waitReady(ctx context.Context) error {
	client := h.network.HTTPClient()
	defer client.CloseIdleConnections()
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 10*time.Millisecond) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL+"/api/v1/cluster/time", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("GET %s answers %s", req.URL, resp.Status)
		}
		select {
		case <-h.process.done:
			return fmt.Errorf("it ended: %v", h.process.err)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

// Stop ends the head as a service manager does. Its status must be 0.
func (h *Head) Stop() error {
	if h.process == nil {
		return nil
	}
	if err := h.process.stop(syscall.SIGTERM, headStop); err != nil {
		return fmt.Errorf("the head did not end cleanly: %w; the end of its log:\n%s", err, h.LogTail(10))
	}
	return nil
}

// Kill ends the head as a power cut does.
func (h *Head) Kill() {
	if h.process != nil {
		_ = h.process.stop(syscall.SIGKILL, time.Minute) // killed is what was wanted
	}
}

// PID is the running head's process.
func (h *Head) PID() int { return h.process.cmd.Process.Pid }

// LogTail is the end of the head's log, over all its starts.
func (h *Head) LogTail(lines int) string {
	text, err := os.ReadFile(h.LogFile)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// environment is what finds this head for the command line; an admin's own
// configuration must not reach the lab.
func (h *Head) environment() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MUSTER_") && !strings.Contains(strings.ToLower(e), "_proxy=") {
			env = append(env, e)
		}
	}
	return append(env, "MUSTER_HEAD="+h.URL, "MUSTER_DATA="+h.Data)
}

// Command is a command of the admin's command line, to be run on the head.
func (h *Head) Command(args ...string) *exec.Cmd {
	cmd := h.network.Command(h.program, args...)
	cmd.Env = h.environment()
	return cmd
}

// CLI runs a command of the command line and returns what it prints. An error
// of the command itself is a *CommandError.
func (h *Head) CLI(ctx context.Context, args ...string) (string, error) {
	return output(ctx, h.Command(args...))
}

// JSON runs a command with -o json and decodes what it prints into v.
func (h *Head) JSON(ctx context.Context, v any, args ...string) error {
	out, err := h.CLI(ctx, append([]string{"-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("muster -o json %s printed no JSON that fits: %w: %.200s", strings.Join(args, " "), err, out)
	}
	return nil
}

// HTTPClient speaks to the head from inside the network.
func (h *Head) HTTPClient() *http.Client { return h.network.HTTPClient() }

// Login gets an access token through the head's login socket, as root on the head does.
func (h *Head) Login(ctx context.Context) (string, error) {
	login, err := json.Marshal(map[string]string{"user": "root", "secret": fmt.Sprintf("lab-%d", time.Now().UnixNano())})
	if err != nil {
		return "", err
	}
	if err := h.announce(ctx, login); err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL+"/api/v1/login", strings.NewReader(string(login)))
	if err != nil {
		return "", err
	}
	client := h.HTTPClient()
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct {
		Success bool
		Reason  string
		Data    struct {
			Token struct {
				Access string `json:"access_token"`
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", fmt.Errorf("POST /login: %s: %w", resp.Status, err)
	}
	if !answer.Success {
		return "", fmt.Errorf("POST /login: %s: %s", resp.Status, answer.Reason)
	}
	return answer.Data.Token.Access, nil
}

// announce makes a one-time secret known to the head.
func (h *Head) announce(ctx context.Context, login []byte) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(h.Data, "login.sock"))
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(append(login, '\n')); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil && len(line) == 0 {
		return fmt.Errorf("login.sock: %w", err)
	}
	var answer struct {
		Success bool
		Reason  string
	}
	if err := json.Unmarshal(line, &answer); err != nil || !answer.Success {
		return fmt.Errorf("login.sock answers %s", line)
	}
	return nil
}
