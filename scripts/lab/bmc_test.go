package lab_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/scripts/lab"
)

// TestBMC switches a machine with the tools that admins have for BMCs, ipmitool
// and redfishtool, so that what the head is tested with is no fiction of ours.
func TestBMC(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	if os.Geteuid() != 0 {
		t.Skip("the lab's network namespace needs root")
	}
	n, err := lab.NewNetwork(t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m, err := n.NewMachine(t.Context(), dir, "tcg", lab.Spec{Name: "box", MAC: "52:54:00:77:03:01", Disk: 1 << 20, Memory: 64})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := overwrite(filepath.Join(dir, "box.disk"), 0, bootSector("\r\nthe disk boots\r\n")); err != nil {
		t.Fatal(err)
	}
	ipmi := func(args ...string) string {
		t.Helper()
		return must(t, n.Command("ipmitool", append([]string{"-I", "lanplus", "-C", "3", "-N", "10", "-H", m.BMC.Addr.String(), "-U", lab.BMCUser, "-P", lab.BMCPassword}, args...)...))
	}
	redfish := func(args ...string) string {
		t.Helper()
		return must(t, n.Command("redfishtool", append([]string{"-r", m.BMC.Addr.String(), "-u", lab.BMCUser, "-p", lab.BMCPassword, "-S", "Always"}, args...)...))
	}
	boots := func(from int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := m.Console.WaitFor(ctx, from, "the disk boots"); err != nil {
			t.Fatal(err)
		}
	}
	// ends waits: a BMC answers before what it was told has happened.
	ends := func(state string) {
		t.Helper()
		for t.Context().Err() == nil && !strings.Contains(ipmi("chassis", "power", "status"), state) {
		}
	}

	ends("off")
	from := m.Console.Mark()
	ipmi("chassis", "bootdev", "disk")
	ipmi("chassis", "power", "on")
	boots(from)
	ends("on")
	ipmi("chassis", "power", "off")
	ends("off")

	var system struct{ PowerState, SerialNumber, UUID string }
	get := func() string {
		t.Helper()
		if err := json.Unmarshal([]byte(redfish("Systems", "get")), &system); err != nil {
			t.Fatal(err)
		}
		return system.PowerState
	}
	if state := get(); state != "Off" || system.SerialNumber != "LAB-box" || system.UUID != m.Spec.UUID() {
		t.Errorf("redfishtool sees %+v", system)
	}
	from = m.Console.Mark()
	redfish("Systems", "setBootOverride", "Once", "Hdd")
	redfish("Systems", "reset", "On")
	boots(from)
	if state := get(); state != "On" {
		t.Errorf("redfishtool sees it %s after it was switched on", state)
	}
	redfish("Systems", "reset", "ForceOff")
	if state := get(); state != "Off" {
		t.Errorf("redfishtool sees it %s after it was switched off", state)
	}
	for _, what := range []string{"Chassis", "Managers"} {
		redfish(what, "get")
	}
	redfish("Chassis", "Power")
	redfish("SessionService")
}
