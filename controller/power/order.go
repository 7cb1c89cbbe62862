package power

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"muster/controller/power/bmc"
	"muster/shared/fault"
)

// order is what is to be done to a node.
type order struct {
	State string            `json:"state,omitempty"`
	Force bool              `json:"force,omitempty"`
	Steps []json.RawMessage `json:"steps,omitempty"` // a step each

	action  bmc.Action
	steps   []step
	retries int           // of what a BMC did not answer
	forced  bool          // as Force, but it ends no order that is under way
	answer  time.Duration // that a BMC has for an answer; 0 leaves it callTime at each way to it
}

// step is one attempt to switch a node off: through its agent, by the BMC's
// power button (soft), or by taking the power away (hard). In JSON also just
// its name.
type step struct {
	Step    string  `json:"step"`
	Timeout float64 `json:"timeout,omitempty"` // seconds until the next step
}

// The steps, each with how long it has unless the order says otherwise. What
// takes place without an agent fits into one answer's time.
const (
	stepAgent = "agent"
	stepSoft  = "soft"
	stepHard  = "hard"
)

func defaultTime(name string) float64 {
	switch name {
	case stepAgent:
		return 120
	case stepSoft:
		return 7
	}
	return 5
}

// Bounds of an order's steps.
const (
	maxSteps    = 8
	maxStepTime = 600 // seconds
)

// UnmarshalJSON takes a word or an object.
func (s *step) UnmarshalJSON(raw []byte) error {
	if json.Unmarshal(raw, &s.Step) == nil {
		return nil
	}
	type plain step
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode((*plain)(s)); err != nil {
		return fmt.Errorf(`a step is a word or like {"step":"soft","timeout":30}`)
	}
	return nil
}

func (s step) time() time.Duration { return time.Duration(s.Timeout * float64(time.Second)) }

const words = `"power on", "power off", "power cycle", "power reset", "soft", or without "power"`

// check reads the words of an order.
func (o *order) check() error {
	word := strings.ToLower(strings.TrimSpace(o.State))
	word = strings.TrimSpace(strings.TrimPrefix(word, "power "))
	actions := map[string]bmc.Action{"on": bmc.PowerOn, "off": bmc.HardOff, "cycle": bmc.Cycle, "reset": bmc.Reset, "soft": bmc.SoftOff}
	a, ok := actions[word]
	if !ok {
		return fault.Invalidf("state: %q is none of %s.", bmc.Clean(o.State), words)
	}
	o.action = a
	if len(o.Steps) > 0 && a != bmc.HardOff && a != bmc.Cycle {
		return fault.Invalidf("steps: only an order to power off or cycle has steps.")
	}
	if len(o.Steps) > 0 && o.Force {
		return fault.Invalidf("steps: force leaves no choice; give one of both.")
	}
	if len(o.Steps) > maxSteps {
		return fault.Invalidf("steps: %d are too many, at most %d.", len(o.Steps), maxSteps)
	}
	for _, raw := range o.Steps {
		var s step
		if err := json.Unmarshal(raw, &s); err != nil {
			return fault.Invalidf("steps: %v.", err)
		}
		synonyms := map[string]string{"shutdown": stepAgent, "acpi": stepSoft, "off": stepHard, stepAgent: stepAgent, stepSoft: stepSoft, stepHard: stepHard}
		name, ok := synonyms[s.Step]
		if !ok {
			return fault.Invalidf("steps: %q is none of agent, soft, hard.", bmc.Clean(s.Step))
		}
		if !(s.Timeout >= 0 && s.Timeout <= maxStepTime) {
			return fault.Invalidf("steps: a timeout is between 0 and %d seconds, not %v.", maxStepTime, s.Timeout)
		}
		if s.Step = name; s.Timeout == 0 {
			s.Timeout = defaultTime(name)
		}
		o.steps = append(o.steps, s)
	}
	return nil
}

// off gives the steps by which an order takes a node down.
func (o *order) off() []step {
	if len(o.steps) > 0 {
		return o.steps
	}
	names := []string{stepAgent, stepSoft, stepHard}
	switch {
	case o.action == bmc.SoftOff:
		names = names[:2]
	case o.Force:
		names = names[2:]
	}
	out := make([]step, len(names))
	for i, name := range names {
		out[i] = step{name, defaultTime(name)}
	}
	return out
}
