// Package attributes keeps on the node what the head says of it: its
// attributes, as files for scripts, and the init scripts that run once they are
// there.
//
// In the directory of the agent's state lie attributes.json, an object with
// uid, name and values, and attributes.ini with the sections [node] and
// [attributes]. They are root's alone, since attributes may be secret, and are
// written only when something changed, each by a rename: a reader sees the old
// file or the new one.
//
// The package must not give the attributes a meaning of their own.
package attributes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"muster/shared/wire"
)

// The files, in the directory of the state.
const (
	FileINI  = "attributes.ini"
	FileJSON = "attributes.json"
)

// Config is what a keeper needs. Every field but Changed and Init is required.
type Config struct {
	Dir string // where the files lie
	Log *slog.Logger
	// Changed is told of the values, at first and when they are others.
	Changed func(values map[string]json.RawMessage)
	Init    *Init
}

// Keeper keeps the files.
type Keeper struct {
	Config
	mu    sync.Mutex
	first sync.Once
	has   bool
	last  []byte // attributes.json
	wg    sync.WaitGroup
}

// New makes a keeper.
func New(c Config) *Keeper { return &Keeper{Config: c} }

// Take writes what the head sent, if it is not what is there. The first that
// come start the init scripts, for as long as ctx lasts: that of the agent, not
// that of a stream.
func (k *Keeper) Take(ctx context.Context, a wire.Attributes) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a.Values == nil {
		a.Values = map[string]json.RawMessage{}
	}
	text, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if !k.has || !bytes.Equal(text, k.last) {
		if err := k.write(text, ini(a)); err != nil {
			return fmt.Errorf("the attributes could not be kept in %s: %w", k.Dir, err)
		}
		k.has, k.last = true, text
		k.Log.Info("attributes", "count", len(a.Values))
		if k.Changed != nil {
			k.Changed(a.Values)
		}
	}
	k.first.Do(func() {
		if k.Init != nil {
			k.wg.Go(func() { k.Init.run(ctx, k.Dir, a) })
		}
	})
	return nil
}

// Wait returns when no init script runs any more, after the context that Take
// was called with has ended.
func (k *Keeper) Wait() { k.wg.Wait() }

func (k *Keeper) write(asJSON, asINI []byte) error {
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return err
	}
	for name, content := range map[string][]byte{FileJSON: asJSON, FileINI: asINI} {
		if err := replace(filepath.Join(k.Dir, name), content); err != nil {
			return err
		}
	}
	return nil
}

// replace writes a file by a rename, unless it has this content.
func replace(path string, content []byte) error {
	if now, err := os.ReadFile(path); err == nil && bytes.Equal(now, content) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

// plainName is a name that an INI file can have as it is. Others are in the
// JSON file only.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// ini writes attributes for scripts. Text that is one line of no special form
// stands as it is, anything else as JSON: no value can look like another line.
func ini(a wire.Attributes) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "; written by muster-agent; other changes are lost\n[node]\nuid = %s\nname = %s\n\n[attributes]\n", value(text(a.UID)), value(text(a.Name)))
	for _, name := range slices.Sorted(maps.Keys(a.Values)) {
		if plainName.MatchString(name) {
			fmt.Fprintf(&b, "%s = %s\n", name, value(a.Values[name]))
		}
	}
	return b.Bytes()
}

func text(s string) json.RawMessage {
	raw, err := json.Marshal(s)
	if err != nil {
		return json.RawMessage(`""`)
	}
	return raw
}

func value(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		var flat bytes.Buffer
		if json.Compact(&flat, raw) != nil {
			return `""`
		}
		return flat.String() // a number or a truth value
	}
	odd := s == "" || s != strings.TrimSpace(s) || strings.ContainsAny(s[:1], `"'[;#`) ||
		strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 })
	if !odd {
		return s
	}
	return string(text(s))
}
