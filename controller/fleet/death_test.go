package fleet_test

import (
	"testing"
	"time"

	"muster/controller/api/apitest"
	"muster/controller/fleet"
	"muster/controller/fleet/fleettest"
	"muster/shared/wire"
)

func TestLastWords(t *testing.T) {
	h := fleettest.Start(t, "")
	uid := h.Node(1)
	const words = "Kernel panic - not syncing: test"
	h.Fleet.Stamp(uid, wire.Step{Step: "dhcp"})
	h.Link(uid, wire.Hello{InImage: true, BootID: "a"}, nil)
	h.WaitState("n0", "up")
	// Anybody can write to a console: a machine that answers lives.
	h.Fleet.Died(t.Context(), uid, words)
	expect(t, state(h, "n0"), "up")
	expect(t, steps(h, "n0"), "1 dhcp, 1 up")

	dead := h.Node(2)
	h.Fleet.Stamp(dead, wire.Step{Step: "dhcp"})
	h.OK("PUT", "/node/putstatus", `{"status":{"users":[{"name":"ada"}]}}`, apitest.AsNode, dead)
	h.Fleet.Died(t.Context(), dead, words)
	h.Fleet.Died(t.Context(), dead, "Kernel panic - not syncing: another")
	expect(t, state(h, "n1"), "failed: console: "+words)
	h.Clock.Add(24 * time.Hour) // it stays so
	expect(t, state(h, "n1"), "failed: console: "+words)
	c := h.Fleet.Condition(dead)
	if !c.Dead || !c.Given.IsZero() || c.Rescue || c.Busy != "1 users" || c.State != fleet.Failed || len(c.Tried) != 0 {
		t.Errorf("its condition is %+v", c)
	}
	h.Fleet.Recovered(dead, "power cycle 1 of 1", "")
	h.Fleet.Recovered(dead, "", "left alone")
	if c := h.Fleet.Condition(dead); c.Dead || c.Given.IsZero() || len(c.Tried) != 1 || c.Reason != "recover: left alone" {
		t.Errorf("its condition is %+v", c)
	}
	h.Fleet.Stamp(dead, wire.Step{Step: "dhcp"})
	expect(t, state(h, "n1"), "booting")
	if c := h.Fleet.Condition(dead); c.Given.IsZero() {
		t.Error("it was given up, and booting alone makes that be forgotten")
	}
	expect(t, steps(h, "n1"), "1 dhcp, 1 console!"+words+", 1 recover, 1 recover!left alone, 2 dhcp")
}
