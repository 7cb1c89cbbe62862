package redfish

import (
	"context"
	"errors"
	"net/http"

	provider "github.com/bmc-toolbox/bmclib/v2/providers/redfish"
	"github.com/bmc-toolbox/common"
	"github.com/go-logr/logr"

	"muster/controller/power/bmc"
)

// bound is a transport whose requests all end with a context: bmclib gives
// none to what it sends.
type bound struct {
	ctx  context.Context
	next http.RoundTripper
}

func (b bound) RoundTrip(r *http.Request) (*http.Response, error) {
	return b.next.RoundTrip(r.WithContext(b.ctx))
}

// Inventory implements bmc.Knowing.
func (m *machine) Inventory(ctx context.Context) (inv bmc.Inventory, err error) {
	defer func() {
		if p := recover(); p != nil { // of a library that believes what it reads
			err = errors.New("the BMC's inventory is not as Redfish describes it")
		}
	}()
	// User and password are the door's part.
	c := provider.New(m.base, "", "", logr.Discard(), provider.WithPort(""),
		provider.WithHttpClient(&http.Client{Transport: bound{ctx, m.http}, CheckRedirect: m.http.redirect}), provider.WithUseBasicAuth(true))
	if err := c.Open(ctx); err != nil {
		return inv, unreachable(ctx, err)
	}
	d, err := c.Inventory(ctx)
	if err != nil {
		return inv, unreachable(ctx, err)
	}
	return inventory(d), nil
}

func inventory(d *common.Device) bmc.Inventory {
	inv := bmc.Inventory{Vendor: bmc.Clean(d.Vendor), Model: bmc.Clean(d.Model), Serial: bmc.Clean(d.Serial), Firmware: map[string]string{}, Components: []bmc.Component{}}
	version := func(name string, c common.Common) {
		if c.Firmware != nil && c.Firmware.Installed != "" {
			inv.Firmware[name] = bmc.Clean(c.Firmware.Installed)
		}
	}
	if d.BIOS != nil {
		version("bios", d.BIOS.Common)
	}
	if d.BMC != nil {
		version("bmc", d.BMC.Common)
		inv.BMC = bmc.Clean(bmc.Or(d.BMC.Model, d.BMC.Description))
	}
	add := func(kind, id string, c common.Common) {
		if len(inv.Components) == bmc.MaxList {
			return
		}
		part := bmc.Component{Kind: kind, Name: bmc.Clean(bmc.Or(c.LogicalName, bmc.Or(id, c.Description))), Vendor: bmc.Clean(c.Vendor), Model: bmc.Clean(bmc.Or(c.Model, c.ProductName)), Serial: bmc.Clean(c.Serial)}
		if c.Firmware != nil {
			part.Firmware = bmc.Clean(c.Firmware.Installed)
		}
		inv.Components = append(inv.Components, part)
	}
	for _, x := range d.CPUs {
		add("cpu", x.ID, x.Common)
	}
	for _, x := range d.Memory {
		add("memory", x.ID, x.Common)
	}
	for _, x := range d.Drives {
		add("drive", x.ID, x.Common)
	}
	for _, x := range d.StorageControllers {
		add("storage controller", x.ID, x.Common)
	}
	for _, x := range d.NICs {
		add("nic", x.ID, x.Common)
	}
	for _, x := range d.GPUs {
		add("gpu", "", x.Common)
	}
	for _, x := range d.PSUs {
		add("psu", x.ID, x.Common)
	}
	return inv
}
