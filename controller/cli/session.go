package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"muster/shared/client"
	"muster/shared/fault"
)

// connect gives the client of this run, logged in as far as that is possible
// without asking anybody.
func (m *muster) connect() (*client.Client, error) {
	if m.client != nil {
		return m.client, nil
	}
	head, err := m.headURL()
	if err != nil {
		return nil, err
	}
	cfg, err := m.tls(head)
	if err != nil {
		return nil, err
	}
	saved, err := m.saved(head)
	if err != nil {
		return nil, err
	}
	opt := client.Options{Head: head, TLS: cfg, Tokens: saved.tokens()}
	opt.Login = func(ctx context.Context, c *client.Client) (client.Tokens, error) {
		return m.loginLocal(ctx, c, saved.Current)
	}
	opt.Save = func(t client.Tokens) {
		if saved.Current == "" { // the socket gives new ones each time
			return
		}
		if err := m.keep(head, t); err != nil {
			m.complain("the login cannot be kept: " + err.Error())
		}
	}
	m.client, err = client.New(opt)
	return m.client, err
}

// loginLocal logs in through the head's socket, as the user or else as
// whoever runs this program.
func (m *muster) loginLocal(ctx context.Context, c *client.Client, as string) (client.Tokens, error) {
	not := fault.New(fault.Unauthenticated, "You are not logged in at %s: run `muster login`.", c.Head())
	if !m.isLocal(c.Head()) {
		if err := c.Reach(ctx); err != nil { // then logging in would not help
			return client.Tokens{}, err
		}
		return client.Tokens{}, not
	}
	users := m.localUsers()
	if as != "" {
		users = []string{as}
	}
	for i, user := range users {
		t, err := c.LoginSocket(ctx, m.socket(), user)
		switch {
		case err == nil:
			return t, nil
		case errors.Is(err, client.ErrNoSocket):
			if away := c.Reach(ctx); away != nil {
				return t, away
			}
			return t, fault.New(fault.Unauthenticated, "You are not logged in at %s, and no head serves %s: start it with `muster serve`, say where its data is with MUSTER_DATA, or run `muster login`.", c.Head(), m.socket())
		case fault.Is(err, fault.Forbidden) && i+1 < len(users):
		default:
			return t, err
		}
	}
	return client.Tokens{}, not
}

// tls gives whom to trust for the head: the authority that was named, the
// local head's, one that was accepted at a login, or those of the system.
func (m *muster) tls(head string) (*tls.Config, error) {
	if !strings.HasPrefix(head, "https:") {
		return nil, nil
	}
	named := m.ca
	if named == "" {
		named = m.Getenv("MUSTER_CA")
	}
	if named != "" {
		return fromFile(named)
	}
	var candidates []string
	if m.isLocal(head) {
		candidates = append(candidates, filepath.Join(m.dataDir(), "ca", "ca.crt"))
	}
	if path, err := m.trustFile(head); err == nil {
		candidates = append(candidates, path)
	}
	for _, path := range candidates {
		cfg, err := fromFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		return cfg, err
	}
	return client.TLS(nil)
}

func fromFile(path string) (*tls.Config, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	cfg, err := client.TLS(pem)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}
