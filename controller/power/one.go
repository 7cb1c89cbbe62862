package power

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/controller/api"
	"muster/controller/power/bmc"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// headerStep says which step did what was ordered.
const headerStep = "X-Power-Step"

// stepDone names the step that did it, of those that were given.
type stepDone struct {
	Step string `json:"step"`
}

func (p *Power) putState(w http.ResponseWriter, r *http.Request) error {
	n, err := p.node(r)
	if err != nil {
		return err
	}
	var o order
	if err := api.Decode(w, r, &o); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	j, err := p.start(r.Context(), n, api.By(r), o)
	if err != nil {
		return err
	}
	select {
	case <-j.done:
	case <-r.Context().Done():
		return r.Context().Err()
	case <-time.After(answerTime):
		return p.underWay(n, j)
	}
	if j.err != nil {
		return j.err
	}
	w.Header().Set(headerStep, j.step)
	if len(o.Steps) > 0 {
		return api.Data(w, stepDone{j.step})
	}
	return api.OK(w)
}

// note puts an order into the audit trail.
func (p *Power) note(ctx context.Context, by kind.Author, n *object.Node, o order) error {
	return p.Record(ctx, by, n, map[string]string{"order": string(o.action), "force": strconv.FormatBool(o.Force)})
}

// extra runs fn at a node's BMC for a request that is not about its power.
func (p *Power) extra(r *http.Request, what string, fn func(context.Context, bmc.Machine) error) error {
	n, err := p.node(r)
	if err != nil {
		return err
	}
	targets, err := p.targets(n)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return fault.New(fault.Conflict, "The node %s has no BMC: muster node update %s --power-uri ipmi://USER:PASSWORD@ADDRESS/", n.Name, n.Name)
	}
	why := asking
	if r.Method != http.MethodGet {
		why = ordering
		if err := p.Record(r.Context(), api.By(r), n, map[string]string{"order": what}); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	return p.at(ctx, n, targets, why, fn)
}

// can runs fn where the machine has the ability T.
func can[T any](what string, fn func(context.Context, T) error) func(context.Context, bmc.Machine) error {
	return func(ctx context.Context, m bmc.Machine) error {
		t, ok := m.(T)
		if !ok {
			return lacking(what)
		}
		return fn(ctx, t)
	}
}

type lacking string

func (l lacking) Error() string        { return "there is no " + string(l) + " by this scheme" }
func (l lacking) Is(target error) bool { return target == bmc.ErrUnsupported }

// bootOrder is the body of boot_device.
type bootOrder struct {
	Device     string `json:"device"`
	Persistent bool   `json:"persistent,omitempty"`
	UEFI       bool   `json:"uefi,omitempty"`
}

func (p *Power) putBoot(w http.ResponseWriter, r *http.Request) error {
	var in bootOrder
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	switch in.Device {
	case "pxe", "disk", "cdrom", "bios", "none":
	default:
		return fault.Invalidf("device: %q is none of pxe, disk, cdrom, bios, none.", bmc.Clean(in.Device))
	}
	err := p.extra(r, "boot from "+in.Device, can("boot device", func(ctx context.Context, m bmc.Booter) error {
		return m.SetBoot(ctx, bmc.Boot{Device: in.Device, Always: in.Persistent, UEFI: in.UEFI})
	}))
	if err != nil {
		return err
	}
	return api.OK(w)
}

func (p *Power) getSensors(w http.ResponseWriter, r *http.Request) error {
	var out []bmc.Sensor
	err := p.extra(r, "", can("sensors", func(ctx context.Context, m bmc.Sensing) (err error) {
		out, err = m.Sensors(ctx)
		return err
	}))
	if err != nil {
		return err
	}
	return api.Data(w, out)
}

func (p *Power) getEvents(w http.ResponseWriter, r *http.Request) error {
	var out []bmc.Event
	err := p.extra(r, "", can("event log", func(ctx context.Context, m bmc.Logging) (err error) {
		out, err = m.Events(ctx)
		return err
	}))
	if err != nil {
		return err
	}
	return api.Data(w, out)
}

func (p *Power) deleteEvents(w http.ResponseWriter, r *http.Request) error {
	err := p.extra(r, "clear the event log", can("event log", func(ctx context.Context, m bmc.Logging) error { return m.ClearEvents(ctx) }))
	if err != nil {
		return err
	}
	return api.OK(w)
}

// light is the body of identify.
type light struct {
	On      *bool `json:"on"`
	Seconds int   `json:"seconds,omitempty"`
}

func (p *Power) putIdentify(w http.ResponseWriter, r *http.Request) error {
	var in light
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	if in.On == nil || in.Seconds < 0 || in.Seconds > 255 {
		return fault.Invalidf(`on is true or false, and seconds from 1 to 255 or left out: {"on":true,"seconds":30}.`)
	}
	err := p.extra(r, "identify light", can("identify light", func(ctx context.Context, m bmc.Identifying) error {
		return m.Identify(ctx, *in.On, time.Duration(in.Seconds)*time.Second)
	}))
	if err != nil {
		return err
	}
	return api.OK(w)
}

// restart is the body of bmc/reset.
type restart struct {
	Type string `json:"type,omitempty"` // cold when empty
}

func (p *Power) postReset(w http.ResponseWriter, r *http.Request) error {
	var in restart
	raw, err := api.Body(w, r)
	if err != nil {
		return err
	}
	if raw != nil {
		if err := api.Strict(raw, &in); err != nil {
			return err
		}
	}
	if in.Type != "" && in.Type != "cold" && in.Type != "warm" {
		return fault.Invalidf("type: %q is neither cold nor warm.", bmc.Clean(in.Type))
	}
	err = p.extra(r, "restart of the BMC", can("BMC reset", func(ctx context.Context, m bmc.Restarting) error { return m.Restart(ctx, in.Type == "warm") }))
	if err != nil {
		return err
	}
	return api.OK(w)
}

func (p *Power) getInventory(w http.ResponseWriter, r *http.Request) error {
	n, err := p.node(r)
	if err != nil {
		return err
	}
	var out bmc.Inventory
	err = p.extra(r, "", can("inventory", func(ctx context.Context, m bmc.Knowing) (err error) {
		out, err = m.Inventory(ctx)
		return err
	}))
	if err != nil {
		return err
	}
	if err := p.Made(n.UID, facts(out)); err != nil {
		return err
	}
	return api.Data(w, out)
}

// maxFacts bounds how many firmware versions and parts go into the hardware.
const maxFacts = 64

// facts are an inventory as selectors and templates ask: flat, as far as that
// goes.
func facts(inv bmc.Inventory) map[string]any {
	out := map[string]any{}
	for key, v := range map[string]string{"vendor": inv.Vendor, "model": inv.Model, "serial": inv.Serial, "system_uuid": inv.UUID, "type": inv.BMC} {
		if v != "" {
			out[key] = v
		}
	}
	for _, name := range slices.Sorted(maps.Keys(inv.Firmware))[:min(len(inv.Firmware), maxFacts)] {
		out["firmware_"+strings.Join(strings.FieldsFunc(strings.ToLower(name), func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') }), "_")] = inv.Firmware[name]
	}
	if len(inv.Components) > 0 {
		out["components"] = inv.Components[:min(len(inv.Components), maxFacts)]
	}
	return out
}
