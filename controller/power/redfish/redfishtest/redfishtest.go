// Package redfishtest is a Redfish service for tests: ServiceRoot, Systems,
// Managers, Chassis and a log, as far as clients ask for them, with switches
// for what BMCs do wrong.
package redfishtest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// User and Password let a client in.
const (
	User     = "admin"
	Password = "p@s:s/w%rd"
)

// BMC is one service with one system.
type BMC struct {
	*httptest.Server
	mu     sync.Mutex
	state  string
	resets []string
	patch  []string
	ignore []string // reset types that are taken and not followed
	before func(http.ResponseWriter, *http.Request) bool
}

// Start runs one over HTTPS until the test ends; the machine is on.
func Start(tb testing.TB) *BMC {
	b := &BMC{state: "On"}
	b.Server = httptest.NewTLSServer(http.HandlerFunc(b.serve))
	tb.Cleanup(b.Server.Close)
	return b
}

// Host is its address and port.
func (b *BMC) Host() string { return b.Listener.Addr().String() }

// Set makes the machine's PowerState this.
func (b *BMC) Set(state string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = state
}

// Ignore makes the service accept these reset types without doing them.
func (b *BMC) Ignore(kinds ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ignore = kinds
}

// Before handles requests in another way where it returns true.
func (b *BMC) Before(fn func(http.ResponseWriter, *http.Request) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.before = fn
}

// Seen gives the resets, and the bodies of PATCHes, that came.
func (b *BMC) Seen() (resets, patches []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.resets), slices.Clone(b.patch)
}

const system = "/redfish/v1/Systems/1"

// resources are the answers that do not change.
var resources = map[string]string{
	"/redfish/v1": `{"@odata.id":"/redfish/v1/","Id":"RootService","RedfishVersion":"1.6.0","Systems":{"@odata.id":"/redfish/v1/Systems"},
		"Managers":{"@odata.id":"/redfish/v1/Managers"},"Chassis":{"@odata.id":"/redfish/v1/Chassis"}}`,
	"/redfish/v1/Systems":                            `{"Members":[{"@odata.id":"/redfish/v1/Systems/1"}]}`,
	"/redfish/v1/Managers":                           `{"Members":[{"@odata.id":"/redfish/v1/Managers/1"}]}`,
	"/redfish/v1/Chassis":                            `{"Members":[{"@odata.id":"/redfish/v1/Chassis/1"}]}`,
	"/redfish/v1/Managers/1":                         `{"@odata.id":"/redfish/v1/Managers/1","Id":"1","Model":"BMC9","FirmwareVersion":"1.2.3","LogServices":{"@odata.id":"/redfish/v1/Managers/1/LogServices"}}`,
	"/redfish/v1/Managers/1/LogServices":             `{"Members":[{"@odata.id":"/redfish/v1/Managers/1/LogServices/SEL"}]}`,
	"/redfish/v1/Managers/1/LogServices/SEL":         `{"@odata.id":"/redfish/v1/Managers/1/LogServices/SEL","Id":"SEL","Entries":{"@odata.id":"/redfish/v1/Managers/1/LogServices/SEL/Entries"}}`,
	"/redfish/v1/Managers/1/LogServices/SEL/Entries": `{"Members":[{"Id":"1","Created":"2030-01-01T00:00:00Z","Severity":"Critical","Message":"Fan 1 \u001b[31mfailed"}]}`,
	"/redfish/v1/Chassis/1":                          `{"@odata.id":"/redfish/v1/Chassis/1","Id":"1","Thermal":{"@odata.id":"/redfish/v1/Chassis/1/Thermal"},"Power":{"@odata.id":"/redfish/v1/Chassis/1/Power"}}`,
	"/redfish/v1/Chassis/1/Thermal":                  `{"Temperatures":[{"Name":"CPU 1","ReadingCelsius":"41.5","Status":{"Health":"OK"}}],"Fans":[{"FanName":"Fan 1","Reading":null}]}`,
	"/redfish/v1/Chassis/1/Power":                    `{"PowerControl":[{"Name":"Total","PowerConsumedWatts":212}]}`,
}

func (b *BMC) serve(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	before := b.before
	b.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	at := strings.TrimSuffix(r.URL.Path, "/")
	user, password, _ := r.BasicAuth()
	if at != "/redfish/v1" && (user != User || password != Password) {
		w.WriteHeader(http.StatusUnauthorized)
		w.Write([]byte(`{"error":{"message":"wrong password ` + password + `"}}`))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case r.Method == "GET" && at == system:
		w.Write([]byte(`{"@odata.id":"` + system + `","Id":"1","Manufacturer":"Maker","Model":"M1","SerialNumber":"S1","BiosVersion":"7.7","PowerState":"` + b.state + `",
			"Links":{"Chassis":[{"@odata.id":"/redfish/v1/Chassis/1"}],"ManagedBy":[{"@odata.id":"/redfish/v1/Managers/1"}]},
			"Actions":{"#ComputerSystem.Reset":{"target":"` + system + `/Actions/ComputerSystem.Reset","ResetType@Redfish.AllowableValues":["On","ForceOff","GracefulShutdown","ForceRestart"]}}}`))
	case r.Method == "GET" && resources[at] != "":
		w.Write([]byte(resources[at]))
	case r.Method == "POST" && strings.HasSuffix(at, ".Reset"), r.Method == "POST" && strings.HasSuffix(at, ".ClearLog"):
		b.reset(at, r)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == "PATCH" && at == system:
		var raw json.RawMessage
		json.NewDecoder(r.Body).Decode(&raw)
		b.patch = append(b.patch, string(raw))
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (b *BMC) reset(at string, r *http.Request) {
	var in struct{ ResetType string }
	json.NewDecoder(r.Body).Decode(&in)
	if !strings.HasPrefix(at, system) {
		in.ResetType = at[strings.LastIndex(at, "/")+1:] + " " + in.ResetType
	}
	b.resets = append(b.resets, in.ResetType)
	if slices.Contains(b.ignore, in.ResetType) {
		return
	}
	switch in.ResetType {
	case "On", "ForceRestart":
		b.state = "On"
	case "ForceOff", "GracefulShutdown":
		b.state = "Off"
	}
}
