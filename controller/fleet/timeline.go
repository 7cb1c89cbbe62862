package fleet

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"muster/shared/wire"
)

// Bounds on what is remembered of a node's boots.
const (
	maxBoots = 20
	maxSteps = 64   // of one boot
	maxWords = 1024 // bytes of a detail or an error
)

// boot is one attempt to get a machine up.
type boot struct {
	Number int         `json:"number"`
	Steps  []wire.Step `json:"steps"`
}

func (n *node) current() *boot {
	if len(n.boots) == 0 {
		return nil
	}
	return &n.boots[len(n.boots)-1]
}

func (b *boot) last() wire.Step {
	if len(b.Steps) == 0 {
		return wire.Step{}
	}
	return b.Steps[len(b.Steps)-1]
}

func (b *boot) failed() bool { return b.last().Error != "" }
func (b *boot) done() bool   { return b.wasUp() && !b.failed() }

// wasUp says whether the machine came up. Its image may still be coming in
// then, so that steps of the image follow.
func (b *boot) wasUp() bool {
	return slices.ContainsFunc(b.Steps, func(s wire.Step) bool { return s.Step == wire.StepUp })
}

func (b *boot) lastError() string {
	s := b.last()
	if s.Error == "" {
		return ""
	}
	return s.Step + ": " + s.Error
}

// begin starts a new boot.
func (n *node) begin() *boot {
	number := 1
	if b := n.current(); b != nil {
		number = b.Number + 1
	}
	n.boots = append(n.boots, boot{Number: number})
	if len(n.boots) > maxBoots {
		n.boots = slices.Delete(n.boots, 0, len(n.boots)-maxBoots)
	}
	return n.current()
}

// Stamp notes a step of a node's boot. Asking for an address begins a new
// boot, unless that is all that happened so far: firmware asks, and then iPXE
// asks again. A step that says what the one before it said is not noted twice.
// Firmware and kernel are stamped for anybody at the node's address who asks
// for its script: for a machine that is up they count only while a boot is open.
func (f *Fleet) Stamp(uid string, s wire.Step) {
	s.Time = f.opt.Now()
	s.Detail, s.Error = clip(s.Detail), clip(s.Error)
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.get(uid)
	b := n.current()
	if b != nil && b.wasUp() && (s.Step == wire.StepFirmware || s.Step == wire.StepKernel) && !n.identity.open(s.Time) {
		return
	}
	if b == nil || (s.Step == wire.StepDHCP && b.last().Step != wire.StepDHCP) || (b.wasUp() && s.Step != wire.StepUp && s.Step != wire.StepImage) {
		b = n.begin()
	}
	last := b.last()
	if last.Step == s.Step && last.Error == s.Error && (last.Detail == s.Detail || s.Step == wire.StepDHCP) {
		return
	}
	b.add(s)
	f.touch(uid, n)
}

// Images gives the digests of the image versions that nodes had in their
// current boot.
func (f *Fleet) Images() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]bool{}
	for _, n := range f.nodes {
		if b := n.current(); b != nil {
			for _, s := range b.Steps {
				if s.Image != "" {
					out[s.Image] = true
				}
			}
		}
	}
	return out
}

func (b *boot) add(s wire.Step) {
	if len(b.Steps) == maxSteps {
		b.Steps = slices.Delete(b.Steps, maxSteps/2, maxSteps/2+1) // keep how it began and how it is
	}
	b.Steps = append(b.Steps, s)
}

// up stamps that the agent runs in the image. bootID tells a new boot from a
// link that was made again. f.mu is held.
func (f *Fleet) up(uid string, n *node, bootID string) {
	b := n.current()
	if b != nil && b.wasUp() {
		if n.bootID == bootID || n.bootID == "" {
			return
		}
		b = nil // it booted without asking the head, from its own disk
	}
	if b == nil {
		b = n.begin()
	}
	b.Steps = append(b.Steps, wire.Step{Step: wire.StepUp, Time: f.opt.Now()})
	if f.opt.Booted != nil {
		f.opt.Booted(uid, Boot{b.Number, slices.Clone(b.Steps)})
	}
	f.opt.Log.Info("node is up", "node", uid)
}

// Boot is one attempt to get a machine up: its steps, oldest first.
type Boot struct {
	Number int
	Steps  []wire.Step
}

// LastBoot gives a node's newest boot; ok is false when there was none.
func (f *Fleet) LastBoot(uid string) (b Boot, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[uid]
	if n == nil || n.current() == nil {
		return Boot{}, false
	}
	last := n.current()
	return Boot{last.Number, slices.Clone(last.Steps)}, true
}

// Entry is one line of a node's timeline.
type Entry struct {
	Boot   int     `json:"boot"` // counts the node's boots
	Step   string  `json:"step"`
	Time   float64 `json:"time"` // seconds since 1970
	Detail string  `json:"detail,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// Timeline gives the steps of a node's boots, oldest first.
func (f *Fleet) Timeline(uid string) []Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []Entry{}
	n := f.nodes[uid]
	if n == nil {
		return out
	}
	for _, b := range n.boots {
		for _, s := range b.Steps {
			out = append(out, Entry{b.Number, s.Step, seconds(s.Time), s.Detail, s.Error})
		}
	}
	return n.withNotes(out)
}

// withNotes puts the notes between the steps, each in the boot that ran then.
func (n *node) withNotes(steps []Entry) []Entry {
	if len(n.notes) == 0 {
		return steps
	}
	for _, is := range n.notes {
		e := Entry{0, is.Step, seconds(is.Time), is.Detail, is.Error}
		for _, b := range n.boots {
			if len(b.Steps) > 0 && !b.Steps[0].Time.After(is.Time) {
				e.Boot = b.Number
			}
		}
		steps = append(steps, e)
	}
	slices.SortStableFunc(steps, func(a, b Entry) int { return cmp.Compare(a.Time, b.Time) })
	return steps
}

// known says whether a step is one that an agent may stamp.
func known(step string) bool {
	return slices.Contains([]string{wire.StepAgent, wire.StepEnrol, wire.StepImage, wire.StepRoot, wire.StepInit}, step)
}

func clip(s string) string {
	if len(s) > maxWords {
		return strings.ToValidUTF8(s[:maxWords], "") + "…"
	}
	return s
}

// head says whether the last step is the head's own verdict, which holds until
// the machine boots again.
func (b *boot) head() bool {
	return b.last().Step == wire.StepConsole || b.last().Step == wire.StepRecover
}

// stale is how long after its last step a machine may still be booting. One
// that gives no sign for longer was switched off or hangs in its firmware.
const stale = 30 * time.Minute
