//go:build cgo

// Command muster-pam asks PAM (service "muster") whether a password is right
// and its user's account may be used. It is a program of its own because PAM
// is a C library with modules that may block or crash, and the head is static.
//
// It reads user, password and the address of the client (may be empty) from
// its standard input, each ended by a zero byte or the end: nothing secret is
// on a command line. The exit status is the answer; a reason is on stderr.
// `muster-pam --pam-file` prints what belongs in /etc/pam.d/muster.
package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/msteinert/pam/v2"
)

// The exit statuses. They avoid 1 and 2, which a crash gives.
const (
	statusOK       = 0
	statusWrong    = 10 // no such user, or not his password
	statusAccount  = 11 // right password, but the account is expired, locked, …
	statusUnusable = 12 // PAM or the input is at fault, not the user
)

const maxInput = 4 << 10

//go:embed pam.d-muster
var pamFile string

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--pam-file" {
		fmt.Print(pamFile)
		return
	}
	status, err := run(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(status)
}

func run(in io.Reader) (int, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxInput))
	if err != nil {
		return statusUnusable, fmt.Errorf("reading user and password: %w", err)
	}
	parts := bytes.Split(bytes.TrimSuffix(data, []byte{0}), []byte{0})
	if len(parts) < 2 || len(parts) > 3 || len(parts[0]) == 0 || len(parts[1]) == 0 {
		return statusUnusable, errors.New("standard input must hold user, password and client address, with zero bytes between them")
	}
	host := ""
	if len(parts) == 3 {
		host = string(parts[2])
	}
	return check(string(parts[0]), string(parts[1]), host)
}

// check asks PAM and says what its answer means.
func check(user, password, host string) (status int, err error) {
	var said string // the last message for people, such as why an account is closed
	tx, err := pam.StartFunc("muster", user, func(style pam.Style, msg string) (string, error) {
		switch style {
		case pam.PromptEchoOff:
			return password, nil
		case pam.PromptEchoOn:
			return user, nil
		}
		said = msg
		return "", nil
	})
	if err != nil {
		return statusUnusable, fmt.Errorf("starting PAM: %w", err)
	}
	defer tx.End()
	if host != "" {
		if err := tx.SetItem(pam.Rhost, host); err != nil {
			return statusUnusable, fmt.Errorf("telling PAM the client's address: %w", err)
		}
	}
	if err := tx.Authenticate(pam.Silent | pam.DisallowNullAuthtok); err != nil {
		return verdict(err, statusWrong), err
	}
	// A module may turn one name into another: that is not who was asked for.
	if now, err := tx.GetItem(pam.User); err != nil || now != user {
		return statusWrong, fmt.Errorf("PAM knows the user as %q", now)
	}
	said = ""
	if err := tx.AcctMgmt(pam.DisallowNullAuthtok); err != nil {
		if said = strings.TrimSpace(said); said != "" {
			return verdict(err, statusAccount), errors.New(strings.ReplaceAll(said, "\n", " "))
		}
		return verdict(err, statusAccount), err
	}
	return statusOK, nil
}

// verdict separates what is the user's fault from what is PAM's.
func verdict(err error, users int) int {
	switch {
	case errors.Is(err, pam.ErrAcctExpired), errors.Is(err, pam.ErrNewAuthtokReqd), errors.Is(err, pam.ErrCredExpired):
		return statusAccount
	case errors.Is(err, pam.ErrAuth), errors.Is(err, pam.ErrUserUnknown), errors.Is(err, pam.ErrMaxtries),
		errors.Is(err, pam.ErrPermDenied), errors.Is(err, pam.ErrCredInsufficient):
		return users
	}
	return statusUnusable
}
