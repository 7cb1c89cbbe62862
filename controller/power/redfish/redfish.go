// Package redfish switches machines by Redfish (DMTF DSP0266):
// redfish://USER:PASSWORD@HOST[:PORT]/[redfish/v1/Systems/ID], over HTTPS
// (redfish+https is the same), redfish+http without. BMCs sign their own
// certificates, which are believed unless the option verify is true.
//
// What it switches with reads only the members that it needs, since many BMCs
// send others in odd types; the inventory is bmclib's. It must not follow a
// BMC to another host, nor read more than a bounded answer.
package redfish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"

	"muster/controller/power/bmc"
)

// maxAnswer bounds an answer in bytes; the largest, an event log, has hundreds
// of kilobytes. maxMembers bounds what a collection may name.
const (
	maxAnswer  = 4 << 20
	maxMembers = 64
)

const root = "/redfish/v1"

// Scheme is redfish://.
type Scheme struct{}

// Open finds the machine that the URI means: the one that its path names, or
// the only one that there is.
func (Scheme) Open(ctx context.Context, t bmc.Target) (bmc.Machine, error) {
	m, err := reach(t)
	if err != nil {
		return nil, err
	}
	if err := m.find(ctx, t.Path); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// reach makes the way to a service. Nothing is sent yet.
func reach(t bmc.Target) (*machine, error) {
	scheme := "https"
	switch t.Transport {
	case "", "https":
	case "http":
		scheme = "http"
	default:
		return nil, fmt.Errorf("redfish+%s:// does not exist, only https and http", t.Transport)
	}
	if t.Host == "" {
		return nil, errors.New("it has no address: redfish://USER:PASSWORD@ADDRESS/")
	}
	if err := t.Only("verify"); err != nil {
		return nil, err
	}
	verify := t.Option("verify", "false")
	if verify != "true" && verify != "false" {
		return nil, fmt.Errorf("verify is true or false, not %q", verify)
	}
	host := t.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if t.Port != "" {
		host = net.JoinHostPort(t.Host, t.Port)
	}
	m := &machine{base: scheme + "://" + host, target: t}
	m.http = newDoor(host, t.User, t.Password, verify == "true")
	return m, nil
}

// machine is a computer system of a service.
type machine struct {
	base   string
	target bmc.Target
	http   *door
	system string // path of the system's resource
}

// link is a reference to a resource.
type link struct {
	ID string `json:"@odata.id"`
}

func (m *machine) find(ctx context.Context, wanted string) error {
	wanted = "/" + strings.Trim(wanted, "/")
	if strings.HasPrefix(wanted, root+"/Systems/") {
		m.system = path.Clean(wanted)
		return nil
	}
	if wanted != "/" && wanted != root {
		return fmt.Errorf("its path is neither empty nor %s/Systems/ID", root)
	}
	systems, err := m.members(ctx, root+"/Systems")
	switch {
	case err != nil:
		return err
	case len(systems) == 0:
		return errors.New("this Redfish service has no system")
	case len(systems) > 1:
		return fmt.Errorf("this Redfish service has %d systems: name one in the URI, such as redfish://ADDRESS%s", len(systems), bmc.Clean(systems[0]))
	}
	m.system = systems[0]
	return nil
}

// members gives the paths that a collection names.
func (m *machine) members(ctx context.Context, at string) ([]string, error) {
	var c struct{ Members []link }
	if err := m.get(ctx, at, &c); err != nil {
		return nil, err
	}
	if len(c.Members) > maxMembers {
		return nil, fmt.Errorf("%s has %d members, which is too many", bmc.Clean(at), len(c.Members))
	}
	var out []string
	for _, l := range c.Members {
		if l.ID != "" {
			out = append(out, l.ID)
		}
	}
	return out, nil
}

func (m *machine) get(ctx context.Context, at string, v any) error {
	return m.call(ctx, http.MethodGet, at, nil, v)
}

// call sends one request. What a BMC names is only ever a path on itself.
func (m *machine) call(ctx context.Context, method, at string, in, out any) error {
	if !strings.HasPrefix(at, "/") || strings.HasPrefix(at, "//") {
		return fmt.Errorf("the BMC names %q, which is no path", bmc.Clean(at))
	}
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, m.base+at, body)
	if err != nil {
		return fmt.Errorf("the BMC names %q, which is no path", bmc.Clean(at))
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("OData-Version", "4.0")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := m.http.client.Do(req)
	if err != nil {
		return unreachable(ctx, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return unreachable(ctx, err)
	}
	if resp.StatusCode >= 300 {
		return refused(method, at, resp.StatusCode, raw)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s is no JSON of a Redfish service: %s", bmc.Clean(at), bmc.Clean(err.Error()))
	}
	return nil
}

// refused makes an error of a status, with the service's own words.
func refused(method, at string, status int, raw []byte) error {
	var e struct {
		Error struct {
			Message string                     `json:"message"`
			More    []struct{ Message string } `json:"@Message.ExtendedInfo"`
		} `json:"error"`
	}
	text := ""
	if json.Unmarshal(raw, &e) == nil {
		if text = e.Error.Message; len(e.Error.More) > 0 && e.Error.More[0].Message != "" {
			text = e.Error.More[0].Message
		}
	}
	if text = bmc.Clean(text); text != "" {
		text = ": " + text
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w (status %d%s)", bmc.ErrDenied, status, text)
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return fmt.Errorf("%w by this BMC: %s %s (status %d%s)", bmc.ErrUnsupported, method, bmc.Clean(at), status, text)
	}
	return fmt.Errorf("%s %s: status %d%s", method, bmc.Clean(at), status, text)
}

// system is what switching needs to know.
type system struct {
	PowerState string
	Actions    struct {
		Reset struct {
			Target  string   `json:"target"`
			Allowed []string `json:"ResetType@Redfish.AllowableValues"`
		} `json:"#ComputerSystem.Reset"`
	}
}

// State implements bmc.Machine. What is about to lose its power still has it.
func (m *machine) State(ctx context.Context) (bmc.State, error) {
	var s struct{ PowerState string }
	if err := m.get(ctx, m.system, &s); err != nil {
		return bmc.Unknown, err
	}
	switch s.PowerState {
	case "On", "PoweringOff", "Paused":
		return bmc.On, nil
	case "Off", "PoweringOn":
		return bmc.Off, nil
	case "":
		return bmc.Unknown, errors.New("the BMC does not tell a PowerState")
	}
	return bmc.Unknown, fmt.Errorf("the BMC tells the PowerState %q, which Redfish does not have", bmc.Clean(s.PowerState))
}

// Do implements bmc.Machine.
func (m *machine) Do(ctx context.Context, a bmc.Action) error {
	// In the order of preference: services know different ones.
	kinds := map[bmc.Action][]string{
		bmc.PowerOn: {"On", "ForceOn", "PushPowerButton"}, bmc.HardOff: {"ForceOff"}, bmc.SoftOff: {"GracefulShutdown", "PushPowerButton"},
		bmc.Cycle: {"PowerCycle", "FullPowerCycle", "ForceRestart"}, bmc.Reset: {"ForceRestart", "PowerCycle"},
	}[a]
	var s system
	if err := m.get(ctx, m.system, &s); err != nil {
		return err
	}
	kind := ""
	for _, k := range kinds {
		if kind == "" && (len(s.Actions.Reset.Allowed) == 0 || slices.Contains(s.Actions.Reset.Allowed, k)) {
			kind = k
		}
	}
	if kind == "" {
		return fmt.Errorf("%w by this BMC: it has none of %s, only %s", bmc.ErrUnsupported, strings.Join(kinds, ", "), bmc.Clean(strings.Join(s.Actions.Reset.Allowed, ", ")))
	}
	target := s.Actions.Reset.Target
	if target == "" {
		target = m.system + "/Actions/ComputerSystem.Reset"
	}
	return m.call(ctx, http.MethodPost, target, map[string]string{"ResetType": kind}, nil)
}

// Close implements bmc.Machine.
func (m *machine) Close() { m.http.client.CloseIdleConnections() }
