package ipmi

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"muster/controller/power/bmc"
)

// SetBoot implements bmc.Booter.
func (m *machine) SetBoot(ctx context.Context, b bmc.Boot) error {
	device, ok := map[string]types.BootDeviceSelector{
		"none": types.BootDeviceSelectorNoOverride, "pxe": types.BootDeviceSelectorForcePXE, "disk": types.BootDeviceSelectorForceHardDrive,
		"cdrom": types.BootDeviceSelectorForceCDROM, "bios": types.BootDeviceSelectorForceBIOSSetup,
	}[b.Device]
	if !ok {
		return fmt.Errorf("%w by IPMI: boot device %q", bmc.ErrUnsupported, b.Device)
	}
	return m.do(ctx, func() error { return m.c.SetBootDevice(ctx, device, types.BIOSBootType(b.UEFI), b.Always) })
}

// Sensors implements bmc.Sensing.
func (m *machine) Sensors(ctx context.Context) ([]bmc.Sensor, error) {
	out := []bmc.Sensor{}
	err := m.do(ctx, func() error {
		for r := range m.c.GetSensorsStream(ctx) {
			if r.Err != nil {
				return r.Err
			}
			if r.Ok == nil {
				continue
			}
			if out = append(out, sensor(r.Ok)); len(out) == bmc.MaxList {
				return nil
			}
		}
		return nil
	})
	return out, err
}

func sensor(s *types.Sensor) bmc.Sensor {
	out := bmc.Sensor{Name: bmc.Clean(s.Name), Type: bmc.Clean(s.SensorType.String()), Status: bmc.Clean(s.Status())}
	if s.IsReadingValid() && s.HasAnalogReading && !math.IsNaN(s.Value) && !math.IsInf(s.Value, 0) {
		v := s.Value
		out.Value, out.Unit = &v, bmc.Clean(s.SensorUnit.String())
	}
	return out
}

// Events implements bmc.Logging.
func (m *machine) Events(ctx context.Context) ([]bmc.Event, error) {
	out := []bmc.Event{}
	err := m.do(ctx, func() error {
		info, err := m.c.GetSELInfo(ctx)
		if err != nil || info.Entries == 0 {
			return err
		}
		for r := range m.c.GetSELEntriesStream(ctx, 0) {
			if r.Err != nil {
				return r.Err
			}
			if r.Ok == nil {
				continue
			}
			if out = append(out, event(r.Ok)); len(out) == bmc.MaxList {
				return nil
			}
		}
		return nil
	})
	return out, err
}

func event(s *types.SEL) bmc.Event {
	e := bmc.Event{ID: strconv.Itoa(int(s.RecordID))}
	switch {
	case s.Standard != nil:
		e.Time = s.Standard.Timestamp.UTC().Format(time.RFC3339)
		e.Source = fmt.Sprintf("%s %#02x", bmc.Clean(s.Standard.SensorType.String()), uint8(s.Standard.SensorNumber))
		e.Severity = bmc.Clean(string(s.Standard.EventSeverity()))
		if e.Text = bmc.Clean(s.Standard.EventString()); bool(s.Standard.EventDir) {
			e.Text += " (over)"
		}
	default:
		raw := s.Pack()
		e.Text = "vendor's record " + hex.EncodeToString(raw[:min(len(raw), 16)])
	}
	return e
}

// ClearEvents implements bmc.Logging.
func (m *machine) ClearEvents(ctx context.Context) error {
	return m.do(ctx, func() error {
		r, err := m.c.ReserveSEL(ctx)
		if err != nil {
			return err
		}
		_, err = m.c.ClearSEL(ctx, r.ReservationID)
		return err
	})
}

// Identify implements bmc.Identifying. IPMI counts in seconds, up to 255.
func (m *machine) Identify(ctx context.Context, on bool, d time.Duration) error {
	seconds := uint8(min(d/time.Second, 255))
	return m.do(ctx, func() error {
		_, err := m.c.ChassisIdentify(ctx, seconds, on && d == 0)
		return err
	})
}

// Restart implements bmc.Restarting.
func (m *machine) Restart(ctx context.Context, warm bool) error {
	return m.do(ctx, func() error {
		if warm {
			return m.c.WarmReset(ctx)
		}
		return m.c.ColdReset(ctx)
	})
}

// Inventory implements bmc.Knowing: the device ID, and the FRU data where a
// BMC has them.
func (m *machine) Inventory(ctx context.Context) (bmc.Inventory, error) {
	inv := bmc.Inventory{Firmware: map[string]string{}, Components: []bmc.Component{}}
	err := m.do(ctx, func() error {
		id, err := m.c.GetDeviceID(ctx)
		if err != nil {
			return err
		}
		inv.BMC = bmc.Clean(types.OEM(id.ManufacturerID).String())
		inv.Firmware["bmc"] = fmt.Sprintf("%d.%02x", id.MajorFirmwareRevision, id.MinorFirmwareRevision)
		return nil
	})
	if err != nil {
		return inv, err
	}
	m.call(func() error { return m.fru(ctx, &inv) }) // many BMCs have none, or a broken one
	return inv, ctx.Err()
}

func (m *machine) fru(ctx context.Context, inv *bmc.Inventory) error {
	f, err := m.c.GetFRU(ctx, 0, "")
	if err != nil || !f.Present() {
		return err
	}
	if p := f.ProductInfoArea; p != nil {
		inv.Vendor, inv.Model = text(p.ManufacturerTypeLength, p.Manufacturer), text(p.NameTypeLength, p.Name)
		inv.Serial = text(p.SerialNumberTypeLength, p.SerialNumber)
	}
	return nil
}

func text(l types.TypeLength, raw []byte) string { return bmc.Clean(types.FRUFieldString(l, raw)) }
