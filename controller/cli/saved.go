package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"muster/shared/client"
)

// logins is what is kept of one head: the tokens of each user who logged in,
// and who did last.
type logins struct {
	Current string                   `json:"current"`
	Sets    map[string]client.Tokens `json:"sets"`
}

func (l logins) tokens() client.Tokens { return l.Sets[l.Current] }

// tokenFile is the file for a head's tokens, trustFile that of the authority
// that was accepted for it.
func (m *muster) tokenFile(head string) (string, error) {
	return m.ownFile("XDG_CACHE_HOME", ".cache", "tokens", head, ".json")
}

func (m *muster) trustFile(head string) (string, error) {
	return m.ownFile("XDG_CONFIG_HOME", ".config", "trusted", head, ".crt")
}

func (m *muster) ownFile(variable, fallback, what, head, suffix string) (string, error) {
	dir := m.Getenv(variable)
	if dir == "" {
		home := m.Getenv("HOME")
		if home == "" {
			return "", fmt.Errorf("logins cannot be kept: set HOME or %s", variable)
		}
		dir = filepath.Join(home, fallback)
	}
	return filepath.Join(dir, "muster", what, url.QueryEscape(head)+suffix), nil
}

// saved reads what is kept of a head; without a place for it, nothing is.
func (m *muster) saved(head string) (logins, error) {
	var l logins
	path, err := m.tokenFile(head)
	if err != nil {
		return l, nil
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	if json.Unmarshal(raw, &l) != nil {
		return logins{}, nil // written by another version: log in again
	}
	return l, nil
}

// keep remembers a set of tokens as the one to use.
func (m *muster) keep(head string, t client.Tokens) error {
	path, err := m.tokenFile(head)
	if err != nil {
		return err
	}
	l, err := m.saved(head)
	if err != nil {
		return err
	}
	if l.Sets == nil {
		l.Sets = map[string]client.Tokens{}
	}
	l.Current, l.Sets[t.User] = t.User, t
	raw, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return writePrivate(path, raw)
}

// forget drops all tokens for a head; was says whether there were any.
func (m *muster) forget(head string) (was bool, err error) {
	path, err := m.tokenFile(head)
	if err != nil {
		return false, err
	}
	err = os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// writePrivate replaces a file whole, for its owner alone.
func writePrivate(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".new-*") // has mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
