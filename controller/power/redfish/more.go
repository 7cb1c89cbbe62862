package redfish

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"muster/controller/power/bmc"
)

// SetBoot implements bmc.Booter.
func (m *machine) SetBoot(ctx context.Context, b bmc.Boot) error {
	device, ok := map[string]string{"none": "None", "pxe": "Pxe", "disk": "Hdd", "cdrom": "Cd", "bios": "BiosSetup"}[b.Device]
	if !ok {
		return fmt.Errorf("%w by Redfish: boot device %q", bmc.ErrUnsupported, b.Device)
	}
	boot := map[string]string{"BootSourceOverrideTarget": device, "BootSourceOverrideEnabled": "Once", "BootSourceOverrideMode": "Legacy"}
	if b.Always {
		boot["BootSourceOverrideEnabled"] = "Continuous"
	}
	if b.UEFI {
		boot["BootSourceOverrideMode"] = "UEFI"
	}
	if b.Device == "none" {
		boot = map[string]string{"BootSourceOverrideTarget": device, "BootSourceOverrideEnabled": "Disabled"}
	}
	return m.call(ctx, http.MethodPatch, m.system, map[string]any{"Boot": boot}, nil)
}

// links are the resources of which a system is a part.
type links struct {
	Links struct{ Chassis, ManagedBy []link }
}

// around gives the paths of a system's chassis or managers, all that the
// service has where the system names none.
func (m *machine) around(ctx context.Context, collection string, pick func(links) []link) ([]string, error) {
	var l links
	if err := m.get(ctx, m.system, &l); err != nil {
		return nil, err
	}
	var out []string
	for _, x := range pick(l) {
		if x.ID != "" && len(out) < maxMembers {
			out = append(out, x.ID)
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	return m.members(ctx, root+"/"+collection)
}

func (m *machine) chassis(ctx context.Context) ([]string, error) {
	return m.around(ctx, "Chassis", func(l links) []link { return l.Links.Chassis })
}

func (m *machine) managers(ctx context.Context) ([]string, error) {
	return m.around(ctx, "Managers", func(l links) []link { return l.Links.ManagedBy })
}

// number is a reading, which some services send as a string or null.
type number struct{ value *float64 }

func (n *number) UnmarshalJSON(raw []byte) error {
	var v float64
	if json.Unmarshal(raw, &v) == nil && string(raw) != "null" {
		n.value = &v
		return nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		if _, err := fmt.Sscanf(s, "%g", &v); err == nil {
			n.value = &v
		}
	}
	return nil
}

// reading is an entry of Thermal or Power.
type reading struct {
	Name, FanName  string
	ReadingCelsius number
	Reading        number
	ReadingUnits   string
	ReadingVolts   number
	Watts          number `json:"PowerConsumedWatts"`
	Status         struct{ Health string }
}

// Sensors implements bmc.Sensing.
func (m *machine) Sensors(ctx context.Context) ([]bmc.Sensor, error) {
	chassis, err := m.chassis(ctx)
	if err != nil {
		return nil, err
	}
	out := []bmc.Sensor{}
	add := func(kind, unit string, r reading, v number) {
		if len(out) < bmc.MaxList {
			out = append(out, bmc.Sensor{Name: bmc.Clean(bmc.Or(r.Name, r.FanName)), Type: kind, Value: v.value, Unit: bmc.Clean(unit), Status: bmc.Clean(r.Status.Health)})
		}
	}
	found := false
	for _, at := range chassis {
		var c struct{ Thermal, Power link }
		if err := m.get(ctx, at, &c); err != nil {
			return nil, err
		}
		var t struct{ Temperatures, Fans []reading }
		var p struct{ Voltages, PowerControl []reading }
		if c.Thermal.ID != "" {
			if found, err = true, m.get(ctx, c.Thermal.ID, &t); err != nil {
				return nil, err
			}
		}
		if c.Power.ID != "" {
			if found, err = true, m.get(ctx, c.Power.ID, &p); err != nil {
				return nil, err
			}
		}
		for _, r := range t.Temperatures {
			add("temperature", "°C", r, r.ReadingCelsius)
		}
		for _, r := range t.Fans {
			add("fan", bmc.Or(r.ReadingUnits, "RPM"), r, r.Reading)
		}
		for _, r := range p.Voltages {
			add("voltage", "V", r, r.ReadingVolts)
		}
		for _, r := range p.PowerControl {
			add("power", "W", r, r.Watts)
		}
	}
	if !found {
		return nil, fmt.Errorf("%w by this BMC: its chassis have neither Thermal nor Power", bmc.ErrUnsupported)
	}
	return out, nil
}

// log is a log service.
type log struct {
	path    string
	Entries link
	Actions struct {
		Clear struct {
			Target string `json:"target"`
		} `json:"#LogService.ClearLog"`
	}
}

// eventLog finds the system event log: of the system, else of its manager.
func (m *machine) eventLog(ctx context.Context) (log, error) {
	managers, err := m.managers(ctx)
	if err != nil {
		return log{}, err
	}
	for _, at := range append([]string{m.system}, managers...) {
		var owner struct{ LogServices link }
		if err := m.get(ctx, at, &owner); err != nil {
			return log{}, err
		}
		if owner.LogServices.ID == "" {
			continue
		}
		services, err := m.members(ctx, owner.LogServices.ID)
		if err != nil {
			return log{}, err
		}
		for _, s := range services {
			l := log{path: s}
			if err := m.get(ctx, s, &l); err != nil {
				return log{}, err
			}
			if l.Entries.ID != "" {
				return l, nil
			}
		}
	}
	return log{}, fmt.Errorf("%w by this BMC: it has no log", bmc.ErrUnsupported)
}

// Events implements bmc.Logging.
func (m *machine) Events(ctx context.Context) ([]bmc.Event, error) {
	l, err := m.eventLog(ctx)
	if err != nil {
		return nil, err
	}
	var c struct {
		Members []struct {
			ID                                     string `json:"Id"`
			Created, Severity, SensorType, Message string
		}
	}
	if err := m.get(ctx, l.Entries.ID, &c); err != nil {
		return nil, err
	}
	out := []bmc.Event{}
	for _, e := range c.Members[:min(len(c.Members), bmc.MaxList)] {
		out = append(out, bmc.Event{ID: bmc.Clean(e.ID), Time: bmc.Clean(e.Created), Severity: bmc.Clean(e.Severity), Source: bmc.Clean(e.SensorType), Text: bmc.Clean(e.Message)})
	}
	return out, nil
}

// ClearEvents implements bmc.Logging.
func (m *machine) ClearEvents(ctx context.Context) error {
	l, err := m.eventLog(ctx)
	if err != nil {
		return err
	}
	return m.call(ctx, http.MethodPost, bmc.Or(l.Actions.Clear.Target, l.path+"/Actions/LogService.ClearLog"), struct{}{}, nil)
}

// Identify implements bmc.Identifying. Redfish has no duration.
func (m *machine) Identify(ctx context.Context, on bool, d time.Duration) error {
	if on && d > 0 {
		return fmt.Errorf("%w by Redfish: a light that goes out by itself; leave seconds out and switch it off", bmc.ErrUnsupported)
	}
	var s struct{ LocationIndicatorActive *bool }
	if err := m.get(ctx, m.system, &s); err != nil {
		return err
	}
	body := map[string]any{"IndicatorLED": map[bool]string{true: "Blinking", false: "Off"}[on]}
	if s.LocationIndicatorActive != nil {
		body = map[string]any{"LocationIndicatorActive": on}
	}
	return m.call(ctx, http.MethodPatch, m.system, body, nil)
}

// Restart implements bmc.Restarting.
func (m *machine) Restart(ctx context.Context, warm bool) error {
	managers, err := m.managers(ctx)
	if err != nil {
		return err
	}
	if len(managers) == 0 {
		return fmt.Errorf("%w by this BMC: it has no manager", bmc.ErrUnsupported)
	}
	kind := map[bool]string{true: "GracefulRestart", false: "ForceRestart"}[warm]
	return m.call(ctx, http.MethodPost, managers[0]+"/Actions/Manager.Reset", map[string]string{"ResetType": kind}, nil)
}
