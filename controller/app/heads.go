package app

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"muster/controller/auth/keyfile"
	"muster/controller/heads"
	"muster/shared/kind"
	"muster/shared/service"
)

// identity is what makes a head the same one over restarts, whatever happens
// to its database: it lies in files beside it.
type identity struct {
	UID       string
	SSHPublic string // as in authorized_keys
}

func loadIdentity(dir string) (identity, error) {
	path := filepath.Join(dir, "head-uid")
	raw, err := keyfile.LoadOrCreate(path, func() ([]byte, error) {
		var b [16]byte
		rand.Read(b[:])
		return []byte(hex.EncodeToString(b[:]) + "\n"), nil
	})
	if err != nil {
		return identity{}, err
	}
	uid := strings.TrimSpace(string(raw))
	if !kind.UIDPattern.MatchString(uid) {
		return identity{}, fmt.Errorf("%s holds no UID, which is 32 lower-case letters and digits: put back what was there, or remove it and this becomes a new head", path)
	}
	path = filepath.Join(dir, "head-ssh-key")
	raw, err = keyfile.LoadOrCreate(path, func() ([]byte, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		block, err := ssh.MarshalPrivateKey(key, "muster head "+uid)
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(block), nil
	})
	if err != nil {
		return identity{}, err
	}
	signer, err := ssh.ParsePrivateKey(raw)
	if err != nil {
		return identity{}, fmt.Errorf("the head's SSH key %s cannot be read: %w", path, err)
	}
	public := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	return identity{UID: uid, SSHPublic: public + " muster-head-" + uid[:8]}, nil
}

func (h *Head) newHeads() *heads.Heads {
	return heads.New(heads.Options{
		Objects: h.reg, Book: h.book, Log: h.log, Now: time.Now, Data: h.cfg.Data,
		Self: heads.Self{
			UID: h.self.UID, Name: h.name, Version: h.version, SSHPublic: h.self.SSHPublic,
			CAPEM: h.ca.Bundle, PeerURL: h.peerURL, Addresses: h.addresses,
		},
		Group:   func() *service.Group { return h.group },
		Saved:   h.saveDisabled,
		Reload:  func() error { return h.reread() },
		Changed: h.announce,
		Left:    filepath.Join(h.cfg.Data, "left"),
		End:     func() { h.end() },
	})
}

// serviceSettings is DATA/services.json.
type serviceSettings struct {
	Disabled []string `json:"disabled"`
}

func (h *Head) servicesFile() string { return filepath.Join(h.cfg.Data, "services.json") }

// disabled names the services that an admin has disabled.
func (h *Head) disabled() ([]string, error) {
	raw, err := keyfile.Read(h.servicesFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var s serviceSettings
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return nil, fmt.Errorf("which services are disabled cannot be read (without the file all are enabled): %s: %w", h.servicesFile(), err)
	}
	if len(s.Disabled) > 0 {
		h.log.Warn("some services are disabled and stay down", "services", strings.Join(s.Disabled, " "))
	}
	return s.Disabled, nil
}

func (h *Head) saveDisabled(names []string) error {
	raw, err := json.Marshal(serviceSettings{names})
	if err != nil {
		return err
	}
	return keyfile.Replace(h.servicesFile(), append(raw, '\n'))
}
