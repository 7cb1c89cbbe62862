package fleet_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"muster/controller/fleet"
	"muster/controller/fleet/fleettest"
	"muster/shared/wire"
)

// days gives the sums as text, hours rounded to a hundredth.
func days(h *fleettest.Head) (out []string) {
	from := time.Date(2029, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, d := range h.Fleet.Usage(from, from.AddDate(3, 0, 0)) {
		out = append(out, fmt.Sprintf("%s %.2f up %.2f down %.2f unknown, %.2f watched", d.Date, d.Hours[fleet.Up], d.Hours[fleet.Down], d.Hours[fleet.Unknown], d.Watched))
	}
	return out
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestNodeHours: the sums follow the states, day by day, over a restart.
func TestNodeHours(t *testing.T) {
	dir := t.TempDir()
	h := fleettest.Start(t, dir) // at midnight, 2030-01-01
	uid := h.Node(1)
	h.Node(2) // never says anything
	h.Clock.Add(6 * time.Hour)
	same(t, days(h), "2030-01-01 0.00 up 0.00 down 12.00 unknown, 6.00 watched")
	a := h.Link(uid, wire.Hello{Version: wire.Version, BootID: "b1", InImage: true}, func(net.Conn, wire.Header) {})
	h.WaitState("n0", fleet.Up)
	h.Clock.Add(3 * time.Hour)
	a.Session.Close()
	h.WaitState("n0", fleet.Down)
	h.Clock.Add(15*time.Hour + 30*time.Minute)
	same(t, days(h), "2030-01-01 3.00 up 15.00 down 30.00 unknown, 24.00 watched", "2030-01-02 0.00 up 0.50 down 0.50 unknown, 0.50 watched")
	h.Stop()

	// The clock of the next head begins at 2030 too: the same day goes on.
	h = fleettest.Start(t, dir)
	same(t, days(h), "2030-01-01 3.00 up 15.00 down 30.00 unknown, 24.00 watched", "2030-01-02 0.00 up 0.50 down 0.50 unknown, 0.50 watched")
	h.OK("DELETE", "/node/"+uid, nil)
	h.Fleet.Forget(uid)
	h.Clock.Add(time.Hour)
	got := days(h)
	same(t, got[1:], "2030-01-02 0.00 up 0.50 down 0.50 unknown, 0.50 watched")
	same(t, got[:1], "2030-01-01 3.00 up 15.00 down 31.00 unknown, 25.00 watched")
	h.Clock.Add(400 * 24 * time.Hour) // a clock that was set, not time that passed
	same(t, days(h), got...)
	if stale := h.Fleet.Stale(); len(stale) != 0 {
		t.Errorf("something is kept of %v", stale)
	}
}
