package fleet_test

import (
	"encoding/json"
	"testing"

	"muster/controller/api/apitest"
	"muster/controller/fleet/fleettest"
)

// TestInventory: what a BMC tells is beside what its node tells, which replaces
// only its own.
func TestInventory(t *testing.T) {
	dir := t.TempDir()
	h := fleettest.Start(t, dir)
	uid := h.Node(1)
	shows := func(want string) {
		t.Helper()
		got := apitest.Decode[struct{ Hardware json.RawMessage }](t, h.OK("GET", "/node/n0", nil))
		expect(t, string(got.Hardware), want)
	}
	tell := func(values map[string]any) {
		t.Helper()
		if err := h.Fleet.Inventory(uid, values); err != nil {
			t.Fatal(err)
		}
	}
	send := func(body string) { h.OK("PUT", "/node/putstatus", body, apitest.AsNode, uid) }
	tell(map[string]any{"serial": "S1", "firmware_bios": "7.7"})
	shows(`{"bmc_firmware_bios":"7.7","bmc_serial":"S1"}`)
	send(`{"hardware":{"cpu_count":4,"bmc_serial":"forged"}}`)
	shows(`{"bmc_firmware_bios":"7.7","bmc_serial":"S1","cpu_count":4}`)
	tell(map[string]any{"serial": "S2"})
	shows(`{"bmc_serial":"S2","cpu_count":4}`)
	h.Stop()
	h = fleettest.Start(t, dir)
	shows(`{"bmc_serial":"S2","cpu_count":4}`)
	send(`{"hardware":{"cpu_count":8}}`)
	shows(`{"bmc_serial":"S2","cpu_count":8}`)
}
