package redfish

import (
	"context"
	"encoding/json"
	"errors"

	"muster/controller/power/bmc"
)

// Root is what a service tells everybody (DSP0266 §8.2: the service root takes
// no credentials). UUID is the service's, not its machine's.
type Root struct{ UUID, Vendor, Product string }

// System is a computer system of a service.
type System struct {
	Path                        string // of its resource
	UUID, Serial, Vendor, Model string
}

// word is a text, or nothing where a service sends something else.
type word string

func (w *word) UnmarshalJSON(raw []byte) error {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		*w = word(bmc.Clean(s))
	}
	return nil
}

// ReadRoot asks a service what it is, without the target's user and password.
func ReadRoot(ctx context.Context, t bmc.Target) (Root, error) {
	t.User, t.Password = "", ""
	m, err := reach(t)
	if err != nil {
		return Root{}, err
	}
	defer m.Close()
	var r struct {
		Version               word `json:"RedfishVersion"`
		Systems               link
		UUID, Vendor, Product word
	}
	if err := m.get(ctx, root+"/", &r); err != nil {
		return Root{}, err
	}
	if r.Version == "" && r.Systems.ID == "" {
		return Root{}, errors.New("it is no Redfish service")
	}
	return Root{string(r.UUID), string(r.Vendor), string(r.Product)}, nil
}

// ReadSystems gives the machines behind a service, those that can be read.
func ReadSystems(ctx context.Context, t bmc.Target) ([]System, error) {
	m, err := reach(t)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	paths, err := m.members(ctx, root+"/Systems")
	if err != nil {
		return nil, err
	}
	var out []System
	for _, at := range paths {
		var s struct {
			UUID, Manufacturer, Model word
			Serial                    word `json:"SerialNumber"`
		}
		if err = m.get(ctx, at, &s); err == nil {
			out = append(out, System{bmc.Clean(at), string(s.UUID), string(s.Serial), string(s.Manufacturer), string(s.Model)})
		}
	}
	if len(out) == 0 && err == nil {
		err = errors.New("this Redfish service has no system")
	}
	if len(out) > 0 {
		err = nil
	}
	return out, err
}
