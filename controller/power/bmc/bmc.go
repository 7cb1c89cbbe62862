// Package bmc is what all ways of switching a machine have in common: the
// small interface that a URI scheme implements, and the words of its results.
// What a scheme can do beyond switching it says by implementing more of the
// interfaces here. It must not know nodes, requests or any protocol.
package bmc

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// State is whether a machine has power.
type State string

// The states; Unknown comes with an error that says why.
const (
	On      State = "on"
	Off     State = "off"
	Unknown State = "unknown"
)

// Action is what can be done to a machine's power.
type Action string

// The actions. Cycle takes the power away for a moment, Reset does not.
const (
	PowerOn  Action = "on"
	SoftOff  Action = "soft" // the power button: the system shuts itself down
	HardOff  Action = "off"
	Cycle    Action = "cycle"
	Reset    Action = "reset"
	NoAction Action = ""
)

// Target is where a machine is switched. No field but Password is secret, and
// that one must not reach a log, an error or an argument of a program.
type Target struct {
	Scheme    string // that of the URI, up to a plus sign
	Transport string // what follows the plus sign
	Host      string // without port and brackets
	Port      string
	User      string
	Password  string
	Path      string // without the leading slash
	Options   url.Values
}

// Option gives an option of the URI's query, or what holds without it.
func (t Target) Option(name, otherwise string) string {
	if v := t.Options.Get(name); v != "" {
		return v
	}
	return otherwise
}

// Only refuses options that a scheme does not have.
func (t Target) Only(names ...string) error {
	for name := range t.Options {
		known := false
		for _, n := range names {
			known = known || n == name
		}
		if !known && len(names) == 0 {
			return fmt.Errorf("%s:// takes no option %q", t.Scheme, name)
		}
		if !known {
			return fmt.Errorf("%s:// takes no option %q, only %s", t.Scheme, name, strings.Join(names, ", "))
		}
	}
	return nil
}

// Hide takes the target's password out of a text that may have come from
// anywhere.
func (t Target) Hide(text string) string {
	if t.Password == "" {
		return text
	}
	for _, form := range []string{t.Password, url.QueryEscape(t.Password), url.PathEscape(t.Password), url.UserPassword("", t.Password).String()[1:]} {
		text = strings.ReplaceAll(text, form, "***")
	}
	return text
}

// Scheme opens machines. Open says what is wrong with a target, and may speak
// to it. An error of context means that it did not answer in time.
type Scheme interface {
	Open(ctx context.Context, t Target) (Machine, error)
}

// Machine switches one machine. It is used by one caller at a time, and
// returns when ctx ends. After an error other than ErrUnsupported it is closed.
type Machine interface {
	State(ctx context.Context) (State, error)
	// Do returns when the action was accepted, not when it has happened.
	Do(ctx context.Context, a Action) error
	Close()
}

// ErrUnsupported is wrapped by what a machine cannot do, ErrDenied by a wrong
// user or password.
var (
	ErrUnsupported = errors.New("not supported")
	ErrDenied      = errors.New("user or password refused")
)

// Boot is what a machine starts from the next time.
type Boot struct {
	Device string // pxe, disk, cdrom, bios, or none for the firmware's own order
	Always bool   // from then on, not once
	UEFI   bool   // instead of the BIOS's ways, where there is a choice
}

// Booter chooses what is booted.
type Booter interface {
	SetBoot(ctx context.Context, b Boot) error
}

// Sensor is one reading.
type Sensor struct {
	Name   string   `json:"name"`
	Type   string   `json:"type,omitempty"`
	Value  *float64 `json:"value"` // null: nothing to read now
	Unit   string   `json:"unit,omitempty"`
	Status string   `json:"status,omitempty"`
}

// Sensing reads sensors.
type Sensing interface {
	Sensors(ctx context.Context) ([]Sensor, error)
}

// Event is one record of the system event log.
type Event struct {
	ID       string `json:"id"`
	Time     string `json:"time,omitempty"` // RFC 3339, by the BMC's clock
	Severity string `json:"severity,omitempty"`
	Source   string `json:"source,omitempty"`
	Text     string `json:"text"`
}

// Logging has a system event log, oldest record first.
type Logging interface {
	Events(ctx context.Context) ([]Event, error)
	ClearEvents(ctx context.Context) error
}

// Identifying has a light to find the machine by. With a duration of 0 it
// stays on until it is switched off.
type Identifying interface {
	Identify(ctx context.Context, on bool, d time.Duration) error
}

// Restarting restarts the BMC itself, not the machine.
type Restarting interface {
	Restart(ctx context.Context, warm bool) error
}

// Inventory is what the BMC knows of the machine.
type Inventory struct {
	Vendor     string            `json:"vendor,omitempty"`
	Model      string            `json:"model,omitempty"`
	Serial     string            `json:"serial,omitempty"`
	UUID       string            `json:"uuid,omitempty"`
	BMC        string            `json:"bmc,omitempty"` // its model or maker
	Firmware   map[string]string `json:"firmware"`      // version by component: bmc, bios, …
	Components []Component       `json:"components"`
}

// Component is a part of the machine.
type Component struct {
	Kind     string `json:"kind"` // cpu, memory, drive, nic, psu, …
	Name     string `json:"name,omitempty"`
	Vendor   string `json:"vendor,omitempty"`
	Model    string `json:"model,omitempty"`
	Serial   string `json:"serial,omitempty"`
	Firmware string `json:"firmware,omitempty"`
}

// Knowing tells what the machine is made of.
type Knowing interface {
	Inventory(ctx context.Context) (Inventory, error)
}

// MaxList bounds sensors, events and components in number, MaxText a text in
// bytes: BMCs lie.
const (
	MaxList = 4096
	MaxText = 400
)

// Clean makes what a BMC said fit for a line of text.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > MaxText {
		s = strings.ToValidUTF8(s[:MaxText], "") + "…"
	}
	return s
}

// Or gives the first text, or the second where that is empty.
func Or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
