package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"muster/controller/auth/keyfile"
	"muster/shared/fault"
)

// maxEnded bounds how many ended logins are remembered, about 150 bytes each.
// Until its tokens would have expired by themselves none can be forgotten.
const maxEnded = 64 << 10

// ended remembers the logins that were ended before their tokens were. It is a
// matter of this head, as its tokens are: other heads do not take them.
type ended struct {
	path string
	now  func() time.Time

	mu    sync.RWMutex
	until map[string]time.Time // by login
}

// endedLine is one line of the file.
type endedLine struct {
	Login string    `json:"login"`
	Until time.Time `json:"until"` // when the last of its tokens expires
}

// openEnded reads the file and writes it anew without what is over.
func openEnded(path string, now func() time.Time) (*ended, error) {
	e := &ended{path: path, now: now, until: map[string]time.Time{}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	var keep bytes.Buffer
	for line := range bytes.Lines(raw) {
		var l endedLine
		// There may be half a line, after a power cut or on a full disk: it was
		// not acknowledged.
		if json.Unmarshal(line, &l) != nil || !now().Before(l.Until) {
			continue
		}
		e.until[l.Login] = l.Until
		keep.Write(line)
	}
	return e, keyfile.Replace(path, keep.Bytes())
}

// has says whether the login was ended.
func (e *ended) has(login string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	_, ok := e.until[login]
	return ok
}

// add ends a login. When it returns nil, that is on disk.
func (e *ended) add(login string, until time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.until[login]; ok {
		return nil
	}
	if len(e.until) >= maxEnded {
		for l, end := range e.until {
			if !e.now().Before(end) {
				delete(e.until, l)
			}
		}
	}
	if len(e.until) >= maxEnded {
		return fault.New(fault.Unavailable, "%d ended logins are remembered already, more than this head has room for: end all tokens of the admin instead, with POST /api/v1/admin/<UID>/revoke.", maxEnded)
	}
	line, err := json.Marshal(endedLine{login, until})
	if err != nil {
		return err
	}
	// The newline in front ends half a line that an earlier attempt left.
	if err := appendSynced(e.path, slices.Concat([]byte{'\n'}, line, []byte{'\n'})); err != nil {
		return fmt.Errorf("remembering that a login has ended: %w", err)
	}
	e.until[login] = until
	return nil
}

func appendSynced(path string, line []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(line)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
