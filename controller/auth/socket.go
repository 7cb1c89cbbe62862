package auth

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/controller/api"
	"muster/shared/service"
)

const (
	maxLine     = 4 << 10 // bytes of the one line that a client sends
	lineTimeout = 5 * time.Second
	maxConns    = 128
	connsPerUID = 8   // so that one user cannot take all
	maxSunPath  = 107 // bytes of a socket's path, unix(7)
)

// socket is DIR/login.sock: whoever can prove to the kernel who he is leaves
// a one-time secret there and logs in with it.
type socket struct {
	path    string
	secrets *secrets
	log     *slog.Logger
	timeout time.Duration // for the line, and for taking the answer
	ln      *net.UnixListener

	mu    sync.Mutex
	conns map[uint32]int // by uid
	total int
}

func newSocket(path string, secrets *secrets, log *slog.Logger) *socket {
	return &socket{path: path, secrets: secrets, log: log, timeout: lineTimeout, conns: map[uint32]int{}}
}

// Socket is the part that serves login.sock.
func (s *Service) Socket() service.Part {
	return service.Part{Name: "login-socket", Doc: "Lets users of the head log in without a password.", Stage: service.Front, Listen: s.socket.listen, Run: s.socket.run}
}

// listen makes the socket. What a killed head left behind is replaced; the
// socket of a living one is not.
func (s *socket) listen(ctx context.Context) error {
	if len(s.path) > maxSunPath {
		return fmt.Errorf("%s is longer than the %d bytes that a Unix socket's path may have: choose a shorter data directory", s.path, maxSunPath)
	}
	conn, err := net.DialTimeout("unix", s.path, time.Second)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%s is served by another head: stop it, or give this one its own data directory", s.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		info, err := os.Lstat(s.path)
		if err != nil {
			return err
		}
		if info.Mode().Type() != fs.ModeSocket {
			return fmt.Errorf("%s is in the way and no socket: remove it", s.path)
		}
		if err := os.Remove(s.path); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is in the way: %w", s.path, err)
	}
	if s.ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"}); err != nil {
		return err
	}
	if err := os.Chmod(s.path, 0o666); err != nil {
		s.ln.Close()
		return err
	}
	return nil
}

// run serves until ctx ends and every conversation is over.
func (s *socket) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.ln.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := s.ln.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			s.log.Warn("login socket: accepting", "error", err)
			select { // out of file descriptors, most likely
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		cred, err := peerCred(conn)
		if err != nil || !s.enter(cred.Uid) {
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer s.leave(cred.Uid)
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			defer conn.Close()
			s.serve(ctx, conn, cred)
		})
	}
}

func (s *socket) enter(uid uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= maxConns || s.conns[uid] >= connsPerUID {
		return false
	}
	s.total++
	s.conns[uid]++
	return true
}

func (s *socket) leave(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.conns[uid]--; s.conns[uid] == 0 {
		delete(s.conns, uid)
	}
}

func peerCred(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(err, inner)
}

// serve reads the one line, decides, and answers.
func (s *socket) serve(ctx context.Context, conn *net.UnixConn, cred *unix.Ucred) {
	conn.SetDeadline(time.Now().Add(s.timeout))
	user, secret, err := readLine(conn)
	if err == nil {
		err = mayBe(ctx, cred.Uid, user)
	}
	if err == nil {
		err = s.secrets.add(user, secret)
	}
	answer := struct {
		Success bool   `json:"success"`
		Reason  string `json:"reason,omitempty"`
	}{Success: err == nil}
	if err != nil {
		answer.Reason = err.Error()
		s.log.Info("login socket: refused", "uid", cred.Uid, "pid", cred.Pid, "user", user, "reason", err)
	}
	conn.SetWriteDeadline(time.Now().Add(s.timeout))
	if err := json.NewEncoder(conn).Encode(answer); err != nil {
		s.log.Debug("login socket: the client left before its answer", "uid", cred.Uid, "error", err)
	}
}

// readLine takes the one line, which may also end with the stream.
func readLine(r io.Reader) (user, secret string, err error) {
	line, err := bufio.NewReaderSize(io.LimitReader(r, maxLine), maxLine).ReadBytes('\n')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", "", errors.New("no line came in time")
	case err == io.EOF && len(line) >= maxLine:
		return "", "", fmt.Errorf("the line is longer than %d bytes", maxLine-1)
	case err != nil && err != io.EOF:
		return "", "", fmt.Errorf("reading the line: %w", err)
	}
	var in struct {
		User   string `json:"user"`
		Secret string `json:"secret"`
	}
	if err := api.CheckJSON(line); err != nil {
		return "", "", err
	}
	if err := api.Strict(line, &in); err != nil {
		return "", "", err
	}
	if err := checkUser(in.User); err != nil {
		return "", "", err
	}
	return in.User, in.Secret, nil
}

// mayBe says whether the OS user uid may log in as that admin: root as
// anybody, others as themselves.
func mayBe(ctx context.Context, uid uint32, admin string) error {
	if uid == 0 {
		return nil
	}
	name, err := userName(ctx, int(uid))
	if err != nil {
		return err
	}
	if name != admin {
		return fmt.Errorf("you are %s and may log in as yourself only, not as %s", name, admin)
	}
	return nil
}

// maxUser bounds a user name in bytes: those of directories are longer than
// the 32 of useradd.
const maxUser = 256

func checkUser(name string) error {
	switch {
	case name == "":
		return errors.New("the key `user` is missing")
	case len(name) > maxUser:
		return fmt.Errorf("the user name has %d bytes; %d are allowed", len(name), maxUser)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("the user name %q holds a control character", name)
	}
	return nil
}
