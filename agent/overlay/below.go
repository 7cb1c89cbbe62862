package overlay

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"muster/agent/rootfs"
)

// Held is the keeper while somebody else changes the root: it changes nothing
// then. A keeper that never had a file holds none.
type Held struct{ s *state }

// Hold calls fn while nothing is changed by the keeper.
func (k *Keeper) Hold(fn func(*Held) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.none() {
		return fn(&Held{})
	}
	s, err := k.open()
	if err != nil {
		return fmt.Errorf("the node's own files: %w", err)
	}
	defer s.close()
	return fn(&Held{s})
}

// Places gives where the node's own files are: from the root, without a leading
// slash, through no links.
func (h *Held) Places() (map[string]bool, error) {
	out := map[string]bool{}
	if h.s == nil {
		return out, nil
	}
	for name := range h.s.Files {
		at, err := h.s.placed(name)
		if err != nil {
			return nil, err
		}
		if at != "" {
			out[at] = true
		}
	}
	return out, nil
}

// placed gives where a file is, "" where its directory is gone.
func (s *state) placed(name string) (string, error) {
	p, err := s.root.Place(name, rootfs.Follow)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer p.Close()
	return p.Path[1:], nil
}

// Lower is what lies below a file of the node's own: a file's content, or where
// a link leads.
type Lower struct {
	Mode     uint32
	UID, GID int
	Content  []byte
	Link     string
}

// Below makes something what comes back in a place once no overlay wants it any
// more; nil for nothing.
func (h *Held) Below(place string, l *Lower) error {
	if h.s == nil {
		return fmt.Errorf("no overlay has the place /%s any more", place)
	}
	for name, n := range h.s.Files {
		at, err := h.s.placed(name)
		if err != nil {
			return err
		}
		if at == place {
			return h.s.under(name, n, l)
		}
	}
	return fmt.Errorf("no overlay has the place /%s any more", place)
}

func (s *state) under(name string, n note, l *Lower) error {
	old := n.Before
	n.Before = nil
	if l != nil {
		n.Before = &was{Link: l.Link, Mode: l.Mode, UID: l.UID, GID: l.GID}
		if l.Link == "" {
			sum := sha256.Sum256(l.Content)
			n.Before.Sum = hex.EncodeToString(sum[:])
			if err := s.keep(n.Before.Sum, l.Content); err != nil {
				return err
			}
		}
	}
	s.Files[name] = n
	if err := s.save(); err != nil {
		return err
	}
	if old != nil && old.Sum != "" && (n.Before == nil || n.Before.Sum != old.Sum) {
		s.forget(old.Sum)
	}
	return nil
}
