package client

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"time"

	"muster/shared/fault"
)

// ErrNoSocket says that nobody serves the login socket: the head does not run
// here, or with another data directory.
var ErrNoSocket = errors.New("no head serves the login socket")

// socketTime bounds the whole conversation with the login socket.
const socketTime = 10 * time.Second

// leaveSecret tells the head, which sees who we are, the secret with which we
// are about to log in.
func leaveSecret(ctx context.Context, path, user string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, socketTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return "", fmt.Errorf("%w %s: %w", ErrNoSocket, path, err)
	case err != nil:
		return "", fmt.Errorf("the login socket %s: %w", path, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	secret := rand.Text()
	line, err := json.Marshal(map[string]string{"user": user, "secret": secret})
	if err != nil {
		return "", err
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return "", fmt.Errorf("the login socket %s: %w", path, err)
	}
	answer, err := bufio.NewReader(io.LimitReader(conn, maxReason)).ReadBytes('\n')
	if err != nil {
		return "", fmt.Errorf("the login socket %s gave no answer: %w", path, err)
	}
	var got struct {
		Success bool
		Reason  string
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return "", fmt.Errorf("the login socket %s answers nonsense: %w", path, err)
	}
	if !got.Success {
		return "", fault.New(fault.Forbidden, "The login socket %s refuses: %s.", path, got.Reason)
	}
	return secret, nil
}
