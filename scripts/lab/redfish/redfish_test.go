package redfish

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// box is a machine that has buttons and nothing else.
type box struct {
	mu      sync.Mutex
	on      bool
	pressed []string
	device  string
	once    bool
}

func (b *box) Boot() (string, bool) { b.mu.Lock(); defer b.mu.Unlock(); return b.device, b.once }

func (b *box) SetBoot(device string, once bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.device, b.once = device, once
}

func (b *box) did(what string, on bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pressed, b.on = append(b.pressed, what), on
	return nil
}

func (b *box) On() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.on }

func (b *box) Start() error {
	if b.On() {
		return errors.New("it is already on")
	}
	return b.did("start", true)
}

func (b *box) Stop()                       { b.did("stop", false) }
func (b *box) Reset(context.Context) error { return b.did("reset", true) }
func (b *box) Press(context.Context) error { return b.did("press", false) }

func TestService(t *testing.T) {
	machine := &box{}
	server := httptest.NewServer(New(machine, Identity{User: "admin", Password: "pw", UUID: "u-1", Serial: "s-1"}))
	defer server.Close()
	token := ""
	call := func(method, path, body string, status int) map[string]any {
		t.Helper()
		req, err := http.NewRequest(method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Auth-Token", token)
		if token == "" {
			req.Header.Del("X-Auth-Token")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != status {
			t.Errorf("%s %s: %d %s, %v, want %d", method, path, resp.StatusCode, raw, err, status)
		}
		if got := resp.Header.Get("X-Auth-Token"); got != "" {
			token = got
		}
		var out map[string]any
		if len(raw) > 0 && json.Unmarshal(raw, &out) != nil {
			t.Errorf("%s %s: no JSON: %s", method, path, raw)
		}
		return out
	}
	call("GET", "/redfish/v1", "", 200)
	call("GET", "/redfish/v1/Systems", "", 401)
	call("POST", "/redfish/v1/SessionService/Sessions", `{"UserName":"admin","Password":"no"}`, 401)
	call("POST", "/redfish/v1/SessionService/Sessions", `{"UserName":"admin","Password":"pw"}`, 201)
	// Every link leads somewhere.
	seen := map[string]bool{}
	var follow func(path string)
	follow = func(path string) {
		if path, _, _ = strings.Cut(path, "#"); seen[path] {
			return
		}
		seen[path] = true
		for _, value := range call("GET", path, "", 200) {
			raw, _ := json.Marshal(value)
			for _, part := range strings.Split(string(raw), `"@odata.id":"`)[1:] {
				target, _, _ := strings.Cut(part, `"`)
				follow(target)
			}
		}
	}
	follow("/redfish/v1/")
	if len(seen) < 12 {
		t.Errorf("only %v is linked", seen)
	}
	told := make(chan string, 8)
	listener := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		told <- string(raw)
	}))
	defer listener.Close()
	call("POST", "/redfish/v1/EventService/Subscriptions", `{"Destination":"`+listener.URL+`","Protocol":"Redfish","Context":"mine"}`, 201)
	reset := func(kind string, status int) {
		t.Helper()
		call("POST", "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", `{"ResetType":"`+kind+`"}`, status)
	}
	reset("On", 204)
	if event := <-told; !strings.Contains(event, `"Context":"mine"`) || !strings.Contains(event, "told On") {
		t.Errorf("the event is %s", event)
	}
	call("DELETE", "/redfish/v1/EventService/Subscriptions/1", "", 204)
	reset("On", 204) // it is on: nothing happens
	reset("ForceRestart", 204)
	reset("PowerCycle", 204)
	reset("GracefulShutdown", 204)
	reset("Nmi", 400)
	if got := strings.Join(machine.pressed, " "); got != "start reset stop start press" {
		t.Errorf("the buttons were: %s", got)
	}
	call("PATCH", "/redfish/v1/Systems/1", `{"Boot":{"BootSourceOverrideTarget":"Pxe","BootSourceOverrideEnabled":"Once"}}`, 204)
	call("PATCH", "/redfish/v1/Systems/1", `{"Boot":{"BootSourceOverrideTarget":"Floppy"}}`, 400)
	if device, once := machine.Boot(); device != "network" || !once {
		t.Errorf("the machine boots %q, once: %v", device, once)
	}
	system := call("GET", "/redfish/v1/Systems/1", "", 200)
	if b := system["Boot"].(map[string]any); system["PowerState"] != "Off" || b["BootSourceOverrideTarget"] != "Pxe" || b["BootSourceOverrideEnabled"] != "Once" || system["UUID"] != "u-1" {
		t.Errorf("the system is %v", system)
	}
	call("POST", "/redfish/v1/Managers/1/Actions/Manager.Reset", `{"ResetType":"ForceRestart"}`, 204)
	call("GET", "/redfish/v1/Systems", "", 401) // sessions do not outlive it
}
