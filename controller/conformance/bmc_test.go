package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
)

// bmc is a machine's management controller, as far as Redfish (DSP0266) needs
// it to be switched on and off.
type bmc struct {
	URL string

	mu    sync.Mutex
	state string
}

func startBMC(c *check) *bmc {
	b := &bmc{state: "On"}
	mux := http.NewServeMux()
	answer := func(path, format string) {
		mux.HandleFunc("GET /redfish/v1"+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			b.mu.Lock()
			defer b.mu.Unlock()
			fmt.Fprint(w, strings.ReplaceAll(format, "STATE", b.state))
		})
	}
	answer("/{$}", `{"@odata.id":"/redfish/v1/","Id":"RootService","RedfishVersion":"1.6.0","Systems":{"@odata.id":"/redfish/v1/Systems"}}`)
	answer("/Systems", `{"@odata.id":"/redfish/v1/Systems","Members@odata.count":1,"Members":[{"@odata.id":"/redfish/v1/Systems/1"}]}`)
	answer("/Systems/1", `{"@odata.id":"/redfish/v1/Systems/1","Id":"1","PowerState":"STATE","Actions":{"#ComputerSystem.Reset":{
		"target":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset","ResetType@Redfish.AllowableValues":["On","ForceOff","GracefulShutdown","ForceRestart"]}}}`)
	mux.HandleFunc("GET /redfish/v1", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/redfish/v1/", http.StatusMovedPermanently)
	})
	mux.HandleFunc("POST /redfish/v1/Systems/1/Actions/ComputerSystem.Reset", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ ResetType string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if strings.HasSuffix(in.ResetType, "Off") || in.ResetType == "GracefulShutdown" {
			b.set("Off")
		} else {
			b.set("On")
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s := httptest.NewServer(mux)
	c.Cleanup(s.Close)
	b.URL = s.URL + "/redfish/v1/Systems/1"
	return b
}

func (b *bmc) set(state string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = state
}
