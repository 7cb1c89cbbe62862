package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster/scripts/lab"
)

const (
	sshHosts   = 100 // of one sshd, at as many addresses: as many of them would only cost the peers more
	sshTime    = 90 * time.Second
	natsPort   = 4222
	natsAgents = "nats-agents" // makes this program the clients of a nats-server
)

// overSSH is how long a tool takes for hostname on hosts over ssh, in seconds
// for each host.
func (f *fleetBed) overSSH(ctx context.Context) (perHost map[string]float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, sshTime)
	defer cancel()
	conf := filepath.Join(f.dir, "ssh_config")
	sshd, err := f.sshd(ctx, conf)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop(sshd)) }()
	hosts := fmt.Sprintf("127.32.0.[1-%d]", sshHosts)
	perHost = map[string]float64{}
	for name, args := range map[string][]string{
		"clush": {"clush", "-S", "-f", "64", "-o", "-F " + conf, "-w", hosts, "hostname"},
		"pdsh":  {"env", "PDSH_SSH_ARGS_APPEND=-F " + conf, "pdsh", "-R", "ssh", "-S", "-f", "64", "-w", hosts, "hostname"},
	} {
		var out bytes.Buffer
		cmd := f.network.Command(args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &out
		begin := time.Now()
		if err := lab.Run(ctx, cmd); err != nil {
			return nil, fmt.Errorf("%s: %w: %.300s", name, err, out.String())
		}
		if n := strings.Count(out.String(), "127.32.0."); n < sshHosts {
			return nil, fmt.Errorf("%s: %d of %d hosts answered: %.300s", name, n, sshHosts, out.String())
		}
		perHost[name] = time.Since(begin).Seconds() / sshHosts
	}
	return perHost, nil
}

// sshd starts one, and writes what its clients are to be configured with. Its
// shells take themselves for inner ones: to read the user's profile would only
// cost the peers.
func (f *fleetBed) sshd(ctx context.Context, conf string) (*exec.Cmd, error) {
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return nil, err
	}
	for _, key := range []string{"host", "user"} {
		if err := lab.Run(ctx, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(f.dir, key))); err != nil {
			return nil, err
		}
	}
	server := filepath.Join(f.dir, "sshd_config")
	for name, text := range map[string]string{
		server: "Port 2222\nHostKey %[1]s/host\nAuthorizedKeysFile %[1]s/user.pub\nStrictModes no\nSetEnv SHLVL=2\nUsePAM no\nUseDNS no\nPasswordAuthentication no\nPermitRootLogin yes\nMaxStartups 1000\nPidFile none\nLogLevel ERROR\n",
		conf:   "Host *\nPort 2222\nUser root\nIdentityFile %[1]s/user\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n",
	} {
		if err := os.WriteFile(name, fmt.Appendf(nil, text, f.dir), 0o600); err != nil {
			return nil, err
		}
	}
	cmd := f.network.Command("/usr/sbin/sshd", "-D", "-e", "-f", server)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd, f.waitFor(ctx, "127.0.0.1:2222")
}

// waitFor waits until something listens at an address.
func (f *fleetBed) waitFor(ctx context.Context, address string) error {
	for {
		conn, err := f.network.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// overNATS is how many answers a second come through a nats-server to one
// request that as many clients get, each on its own connection.
func (f *fleetBed) overNATS(ctx context.Context, count int) (rate float64, err error) {
	server := f.network.Command("nats-server", "-a", "127.0.0.1", "-p", strconv.Itoa(natsPort))
	if err := server.Start(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop(server)) }()
	address := fmt.Sprintf("127.0.0.1:%d", natsPort)
	if err := f.waitFor(ctx, address); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	agents := f.network.Command(self, natsAgents, strconv.Itoa(count))
	said, err := agents.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := agents.Start(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop(agents)) }()
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil {
		return 0, fmt.Errorf("the clients of nats-server: %q, %w", line, err)
	}
	conn, err := f.network.DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReaderSize(conn, 64<<10)
	fmt.Fprint(conn, "CONNECT {\"verbose\":false}\r\nSUB answers 1\r\n")
	var seconds []float64
	for range fleetRepeats {
		begin := time.Now()
		fmt.Fprint(conn, "PUB command answers 8\r\nhostname\r\n")
		for got := 0; got < count; {
			line, err := in.ReadString('\n')
			if err != nil {
				return 0, fmt.Errorf("nats-server: %d of %d answers: %w", got, count, err)
			}
			switch {
			case strings.HasPrefix(line, "MSG "):
				got++
			case strings.HasPrefix(line, "PING"):
				fmt.Fprint(conn, "PONG\r\n")
			}
		}
		seconds = append(seconds, time.Since(begin).Seconds())
	}
	return float64(count) / median(seconds), nil
}

// serveNATS is the clients: each answers every command with a name, until ctx or
// one of their connections ends. It says when all of them listen.
func serveNATS(ctx context.Context, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	var ready sync.WaitGroup
	for i := range n {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", natsPort))
		if err != nil {
			return err
		}
		ready.Add(1)
		go func() {
			err := answerNATS(conn, fmt.Sprintf("n%d", i), ready.Done)
			select {
			case ended <- err:
			default:
			}
		}()
	}
	ready.Wait()
	fmt.Println("ready")
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

func answerNATS(conn net.Conn, name string, ready func()) error {
	answer := fmt.Sprintf(" %d\r\n%s\r\n", len(name), name)
	if _, err := fmt.Fprint(conn, "CONNECT {\"verbose\":false}\r\nSUB command 1\r\nPING\r\n"); err != nil {
		return err
	}
	ready = sync.OnceFunc(ready)
	for in := bufio.NewReaderSize(conn, 1<<10); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		words := strings.Fields(line)
		switch {
		case len(words) == 5 && words[0] == "MSG": // subject, subscription, whom to answer, size
			_, err = fmt.Fprint(conn, "PUB "+words[3]+answer)
		case len(words) == 1 && words[0] == "PONG":
			ready() // it has the subscription
		case len(words) == 1 && words[0] == "PING":
			_, err = fmt.Fprint(conn, "PONG\r\n")
		}
		if err != nil {
			return err
		}
	}
}
