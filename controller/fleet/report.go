package fleet

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"muster/shared/fault"
	"muster/shared/wire"
)

// Bounds on what a node may report, per section.
const (
	maxSection     = 1 << 20 // bytes of JSON
	maxSectionKeys = 1000
)

// section is a status, entry by entry.
type section struct {
	entries map[string]json.RawMessage
	size    int
	whole   json.RawMessage // all of it as JSON, made when it is asked for
}

// size is about what an entry takes as JSON.
func entrySize(key string, value json.RawMessage) int { return len(key) + len(value) + len(`"":,`) }

func newSection(entries map[string]json.RawMessage) section {
	s := section{entries: entries, size: 2}
	for key, value := range entries {
		s.size += entrySize(key, value)
	}
	return s
}

// text gives all of it as JSON, keys in order.
func (s *section) text() json.RawMessage {
	if s.entries != nil && s.whole == nil {
		s.whole = join(s.entries, s.size, func(json.RawMessage) bool { return true })
	}
	return s.whole
}

// parts gives the small entries and the bulky ones as an object each, nil
// where there are none.
func (s *section) parts() (small, bulk []byte) {
	if s.entries == nil {
		return nil, nil
	}
	any := false
	for _, value := range s.entries {
		any = any || len(value) >= bulky
	}
	if any {
		bulk = join(s.entries, s.size, func(v json.RawMessage) bool { return len(v) >= bulky })
	}
	return join(s.entries, 1<<10, func(v json.RawMessage) bool { return len(v) < bulky }), bulk
}

// join writes the entries that are picked as one object.
func join(entries map[string]json.RawMessage, size int, pick func(json.RawMessage) bool) []byte {
	out := append(make([]byte, 0, size), '{')
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if !pick(entries[key]) {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		name, _ := json.Marshal(key) // a string always can be
		out = append(append(append(out, name...), ':'), entries[key]...)
	}
	return append(out, '}')
}

// Report is what a node sent. Each section that is not nil replaces that
// section whole, but for the entries of the status that Keep names: these stay
// as they are, so that what is long and seldom changes is sent once.
//
// With Since the status holds only what changed after the report of that name,
// and Drop names the entries that are no more.
type Report struct {
	Status, Hardware json.RawMessage
	Keep             []string
	Name, Since      string
	Drop             []string
}

// Report takes what a node sent. What breaks a bound is refused, and so is
// building on what is not there (Conflict: send all of it); nothing changes
// then. A refusal is noted on the node's timeline.
func (f *Fleet) Report(uid string, r Report) error {
	status, err := f.read(r)
	if err != nil {
		f.note(uid, wire.PathStatus, err)
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.get(uid)
	next, err := n.next(status, r)
	if err != nil {
		return err // nothing is wrong with the node: this head has not what it builds on
	}
	hardware := r.Hardware
	if hardware != nil {
		if hardware, err = n.withBMC(hardware); err != nil {
			return err
		}
	}
	f.reports++
	if status != nil {
		n.status, n.reported, n.report = next, f.opt.Now(), r.Name
	}
	if hardware != nil && !bytes.Equal(n.hardware, hardware) {
		n.hardware = hardware
		f.push.want(uid) // its files may tell of it
	}
	f.news(uid)
	f.notice(uid, n)
	return nil
}

// read holds what came to its bounds, and gives the entries of the status.
func (f *Fleet) read(r Report) (map[string]json.RawMessage, error) {
	status, err := entriesOf("status", r.Status)
	if err != nil {
		return nil, err
	}
	if _, err := entriesOf("hardware", r.Hardware); err != nil {
		return nil, err
	}
	if len(r.Name) > 64 || len(r.Since) > 64 || len(r.Keep) > maxSectionKeys || len(r.Drop) > maxSectionKeys {
		return nil, fault.Invalidf("report, since, keep or drop: longer than a report can have use for.")
	}
	return status, f.clock(status[wire.KeyTime])
}

// clock refuses the report of a node whose clock is far off: the times in it
// would be taken for true.
func (f *Fleet) clock(raw json.RawMessage) error {
	if raw == nil {
		return nil
	}
	sent, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		return fault.Invalidf("status: time is %.40q, not a number of seconds since 1970.", raw)
	}
	now := seconds(f.opt.Now())
	if off := sent - now; off > wire.MaxSkew.Seconds() || off < -wire.MaxSkew.Seconds() {
		return fault.Invalidf("status: the node's clock is %.0f s from the head's, at most %.0f are taken; set it, or leave time out.", off, wire.MaxSkew.Seconds())
	}
	return nil
}

func entriesOf(name string, raw json.RawMessage) (map[string]json.RawMessage, error) {
	if raw == nil {
		return nil, nil
	}
	if len(raw) > maxSection {
		return nil, fault.New(fault.TooLarge, "%s: %d bytes are too much, at most %d are taken.", name, len(raw), maxSection)
	}
	var entries map[string]json.RawMessage
	if json.Unmarshal(raw, &entries) != nil || entries == nil {
		return nil, fault.Invalidf("%s: must be a JSON object.", name)
	}
	if len(entries) > maxSectionKeys {
		return nil, fault.New(fault.TooLarge, "%s: %d keys are too many, at most %d are taken.", name, len(entries), maxSectionKeys)
	}
	return entries, nil
}

// next is the status after a report.
func (n *node) next(entries map[string]json.RawMessage, r Report) (section, error) {
	if len(r.Keep) == 0 && r.Since == "" {
		return newSection(entries), nil
	}
	if entries == nil {
		return section{}, fault.Invalidf("keep, since: there is no status to keep something in.")
	}
	if r.Since != "" {
		if n.report != r.Since {
			return section{}, fault.New(fault.Conflict, "since: this head does not have the report %q of the node: send all of it.", r.Since)
		}
		all := maps.Clone(n.status.entries)
		for _, key := range r.Drop {
			delete(all, key)
		}
		maps.Copy(all, entries)
		entries = all
	}
	for _, key := range r.Keep {
		value, ok := n.status.entries[key]
		if !ok {
			return section{}, fault.New(fault.Conflict, "keep: this head has no status %q of the node: send it.", key)
		}
		entries[key] = value
	}
	s := newSection(entries)
	if s.size > maxSection || len(entries) > maxSectionKeys {
		return s, fault.New(fault.TooLarge, "status: %d bytes with %d keys are too much, at most %d and %d are taken.", s.size, len(entries), maxSection, maxSectionKeys)
	}
	return s, nil
}

// note is something on a node's timeline that is no step of a boot.
type note struct {
	Time   time.Time `json:"time"`
	Step   string    `json:"step"`
	Detail string    `json:"detail,omitempty"`
	Error  string    `json:"error,omitempty"`
}

// maxNotes is how many of them are remembered.
const maxNotes = 20

// StepReport is on a timeline where a report was refused.
const StepReport = "report"

// note puts the reason of a refusal on the timeline and into the log, once as
// long as it is the same.
func (f *Fleet) note(uid, path string, err error) {
	if f.annotate(uid, note{Step: StepReport, Error: err.Error()}) {
		f.opt.Log.Warn("a report was refused", "node", uid, "path", path, "reason", err)
	}
}

// annotate adds a note, unless the newest says the same.
func (f *Fleet) annotate(uid string, is note) bool {
	is.Time, is.Detail, is.Error = f.opt.Now(), clip(is.Detail), clip(is.Error)
	f.mu.Lock()
	defer f.mu.Unlock()
	if is.Step == StepReport {
		f.refused++
	}
	n := f.nodes[uid]
	if n == nil {
		return true
	}
	if len(n.notes) > 0 {
		if last := n.notes[len(n.notes)-1]; last.Step == is.Step && last.Detail == is.Detail && last.Error == is.Error {
			return false
		}
	}
	n.notes = append(n.notes, is)
	if len(n.notes) > maxNotes {
		n.notes = slices.Delete(n.notes, 0, len(n.notes)-maxNotes)
	}
	f.stain(uid)
	return true
}
