package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"muster/shared/client"
	"muster/shared/fault"
	"muster/shared/sshsig"
)

const (
	// maxKeyTries is how many keys of an agent are tried, as sshd allows: the
	// head counts each that fails.
	maxKeyTries = 6
	// agentTime bounds a conversation with the agent, which may ask somebody
	// to touch a token or to confirm.
	agentTime = 2 * time.Minute
	maxKey    = 64 << 10 // bytes of a key file
)

// loginSSH logs in with one of the keys of ssh-agent, or with the one in a
// file: a private key, or a public one that the agent has the private one of.
func (m *muster) loginSSH(ctx context.Context, c *client.Client, user, file string) (client.Tokens, error) {
	signers, done, err := m.signers(file)
	if err != nil {
		return client.Tokens{}, err
	}
	defer done()
	var refused error
	for i, key := range signers {
		if i == maxKeyTries {
			return client.Tokens{}, fmt.Errorf("the first %d keys of the agent are none of admin %s: name the right one with --identity FILE.pub", maxKeyTries, printable(user))
		}
		t, err := c.LoginSSH(ctx, user, func(namespace string, message []byte) (string, error) {
			return sshsig.Sign(key, namespace, message)
		})
		if !fault.Is(err, fault.Unauthenticated) {
			return t, err
		}
		refused = err
	}
	return client.Tokens{}, refused
}

// signers gives the keys to try, at least one.
func (m *muster) signers(file string) (keys []ssh.Signer, done func(), err error) {
	var only ssh.PublicKey
	if file != "" {
		raw, err := readSmall(file, maxKey)
		if err != nil {
			return nil, nil, err
		}
		if bytes.Contains(raw, []byte("PRIVATE KEY")) {
			key, err := m.privateKey(file, raw)
			return []ssh.Signer{key}, func() {}, err
		}
		if only, _, _, _, err = ssh.ParseAuthorizedKey(raw); err != nil {
			return nil, nil, fmt.Errorf("%s is neither a private nor a public SSH key", file)
		}
	}
	path := m.Getenv("SSH_AUTH_SOCK")
	if path == "" {
		return nil, nil, errors.New("there is no ssh-agent (SSH_AUTH_SOCK is not set): start one and add the key to it, or give a private key with --identity FILE")
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, nil, fmt.Errorf("ssh-agent does not answer: %w", err)
	}
	done = func() { conn.Close() }
	if err := conn.SetDeadline(time.Now().Add(agentTime)); err != nil {
		done()
		return nil, nil, err
	}
	all, err := agent.NewClient(conn).Signers()
	if err != nil {
		done()
		return nil, nil, fmt.Errorf("ssh-agent does not list its keys: %w", err)
	}
	for _, key := range all {
		if only != nil && !bytes.Equal(key.PublicKey().Marshal(), only.Marshal()) || sshsig.Usable(key.PublicKey()) != nil {
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		done()
		return nil, nil, errors.New("ssh-agent has no key to log in with: add one with ssh-add")
	}
	return keys, done, nil
}

// privateKey reads one; a passphrase is asked for where somebody is there.
func (m *muster) privateKey(file string, raw []byte) (ssh.Signer, error) {
	key, err := ssh.ParsePrivateKey(raw)
	var locked *ssh.PassphraseMissingError
	if !errors.As(err, &locked) {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return key, nil
	}
	if !m.canAsk() {
		return nil, fmt.Errorf("%s has a passphrase and there is no terminal to ask for it: add the key to ssh-agent with ssh-add", file)
	}
	pass, err := m.ask("Passphrase of " + file)
	if err != nil {
		return nil, err
	}
	if key, err = ssh.ParsePrivateKeyWithPassphrase(raw, []byte(pass)); err != nil {
		return nil, fmt.Errorf("%s: the passphrase is wrong", file)
	}
	return key, nil
}

func readSmall(file string, most int64) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > most || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no key: it is not a regular file of at most %d bytes", file, most)
	}
	return os.ReadFile(file)
}

// agentAtHand says whether an agent is there to be asked.
func (m *muster) agentAtHand() bool {
	path := strings.TrimSpace(m.Getenv("SSH_AUTH_SOCK"))
	if path == "" {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeSocket != 0
}
