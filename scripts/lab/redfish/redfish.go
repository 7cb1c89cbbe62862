// Package redfish is the Redfish service of a lab's machines (DMTF DSP0266):
// the part of it that clients need to switch a machine, choose what it boots,
// see what it is and be told of events. It knows no more of a machine than its
// buttons, and must not claim what the machine does not do.
package redfish

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Machine is what a service switches.
type Machine interface {
	On() bool
	Start() error
	Stop()
	Reset(ctx context.Context) error
	Press(ctx context.Context) error // the power button
	Boot() (device string, once bool)
	SetBoot(device string, once bool) // disk, network, or nothing for its own order
}

// Identity is who is let in, and what the machine says it is.
type Identity struct {
	User, Password string
	UUID, Serial   string
}

// Service is a machine's.
type Service struct {
	machine Machine
	id      Identity
	mux     *http.ServeMux

	mu       sync.Mutex
	sessions map[string]string // user by token
	led      string
	events   subscriptions
}

// Bounds of what a client may leave here.
const (
	maxSessions = 16
	maxBody     = 64 << 10
)

const base = "/redfish/v1"

// New makes a service.
func New(m Machine, id Identity) *Service {
	s := &Service{machine: m, id: id, mux: http.NewServeMux(), sessions: map[string]string{}, led: "Off"}
	for path, give := range map[string]func() any{
		"": s.root, "/SessionService": s.sessionService, "/SessionService/Sessions": s.listSessions,
		"/Systems": only("ComputerSystem", "/Systems"), "/Systems/1": s.system,
		"/Managers": only("Manager", "/Managers"), "/Managers/1": s.manager,
		"/Chassis": only("Chassis", "/Chassis"), "/Chassis/1": s.chassis,
		"/Chassis/1/Power": s.power, "/Chassis/1/Thermal": s.thermal,
		"/EventService": s.eventService, "/EventService/Subscriptions": s.listSubscriptions,
	} {
		s.mux.HandleFunc("GET "+base+path+"/{$}", func(w http.ResponseWriter, _ *http.Request) { send(w, http.StatusOK, give()) })
	}
	for pattern, do := range map[string]http.HandlerFunc{
		"GET /redfish/{$}": func(w http.ResponseWriter, _ *http.Request) { send(w, http.StatusOK, object{"v1": base + "/"}) },
		"POST " + base + "/SessionService/Sessions/{$}":                s.login,
		"GET " + base + "/SessionService/Sessions/{id}/{$}":            s.getSession,
		"GET " + base + "/EventService/Subscriptions/{id}/{$}":         s.getSubscription,
		"DELETE " + base + "/SessionService/Sessions/{id}/{$}":         s.logout,
		"PATCH " + base + "/Systems/1/{$}":                             s.change,
		"POST " + base + "/Systems/1/Actions/ComputerSystem.Reset/{$}": s.reset,
		"POST " + base + "/Managers/1/Actions/Manager.Reset/{$}":       s.restart,
		"POST " + base + "/EventService/Subscriptions/{$}":             s.subscribe,
		"DELETE " + base + "/EventService/Subscriptions/{id}/{$}":      s.unsubscribe,
	} {
		s.mux.HandleFunc(pattern, do)
	}
	return s
}

// ServeHTTP implements http.Handler. Paths may end with a slash or not.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/") {
		r.URL.Path += "/"
	}
	public := r.URL.Path == "/redfish/" || r.URL.Path == base+"/" || r.Method == http.MethodPost && r.URL.Path == base+"/SessionService/Sessions/"
	if !public && !s.known(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="Redfish"`)
		refuse(w, http.StatusUnauthorized, "NoValidSession", "There is no valid session established with the implementation.")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	w.Header().Set("OData-Version", "4.0")
	if _, pattern := s.mux.Handler(r); pattern == "" {
		refuse(w, http.StatusNotFound, "ResourceMissingAtURI", "The resource at the URI was not found.")
		return
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Service) known(r *http.Request) bool {
	if token := r.Header.Get("X-Auth-Token"); token != "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.sessions[token] != ""
	}
	user, password, _ := r.BasicAuth()
	return s.credentials(user, password)
}

func (s *Service) credentials(user, password string) bool {
	return subtle.ConstantTimeCompare([]byte(user), []byte(s.id.User))&subtle.ConstantTimeCompare([]byte(password), []byte(s.id.Password)) == 1
}

func (s *Service) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ UserName, Password string }
	if json.NewDecoder(r.Body).Decode(&in) != nil || !s.credentials(in.UserName, in.Password) {
		refuse(w, http.StatusUnauthorized, "ResourceAtUriUnauthorized", "The user name or the password is wrong.")
		return
	}
	token := rand.Text()
	s.mu.Lock()
	full := len(s.sessions) >= maxSessions
	if !full {
		s.sessions[token] = in.UserName
	}
	s.mu.Unlock()
	if full {
		refuse(w, http.StatusServiceUnavailable, "SessionLimitExceeded", "There are too many sessions.")
		return
	}
	id := sessionID(token)
	w.Header().Set("X-Auth-Token", token)
	w.Header().Set("Location", base+"/SessionService/Sessions/"+id)
	send(w, http.StatusCreated, session(id, in.UserName))
}

func session(id, user string) any {
	return resource("/SessionService/Sessions/"+id, "Session.v1_6_0.Session", id, "Session "+id, object{"UserName": user})
}

func (s *Service) getSession(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token, user := range s.sessions {
		if id := sessionID(token); id == r.PathValue("id") {
			send(w, http.StatusOK, session(id, user))
			return
		}
	}
	refuse(w, http.StatusNotFound, "ResourceMissingAtURI", "There is no such session.")
}

// sessionID names a session without giving its token away.
func sessionID(token string) string { return token[:8] }

func (s *Service) logout(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token := range s.sessions {
		if sessionID(token) == r.PathValue("id") {
			delete(s.sessions, token)
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	refuse(w, http.StatusNotFound, "ResourceMissingAtURI", "There is no such session.")
}

// change takes a PATCH of the system: what it boots, and its light.
func (s *Service) change(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Boot *struct {
			Enabled *string `json:"BootSourceOverrideEnabled"`
			Target  *string `json:"BootSourceOverrideTarget"`
		}
		IndicatorLED *string
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		refuse(w, http.StatusBadRequest, "MalformedJSON", "The body is no JSON: "+err.Error())
		return
	}
	if in.Boot != nil {
		enabled, target := s.override()
		if in.Boot.Enabled != nil {
			enabled = *in.Boot.Enabled
		}
		if in.Boot.Target != nil {
			target = *in.Boot.Target
		}
		device, ok := bootDevices[target]
		if !ok || !slices.Contains(bootEnabled, enabled) {
			refuse(w, http.StatusBadRequest, "PropertyValueNotInList", "Boot has a value that is not among those allowed.")
			return
		}
		if enabled == "Disabled" {
			device = ""
		}
		s.machine.SetBoot(device, enabled == "Once")
	}
	if in.IndicatorLED != nil {
		s.mu.Lock()
		s.led = *in.IndicatorLED
		s.mu.Unlock()
	}
	w.WriteHeader(http.StatusNoContent)
}

// override is what the machine boots, in Redfish's words.
func (s *Service) override() (enabled, target string) {
	device, once := s.machine.Boot()
	for name, d := range bootDevices {
		if d == device {
			target = name
		}
	}
	switch {
	case device == "":
		enabled = "Disabled"
	case once:
		enabled = "Once"
	default:
		enabled = "Continuous"
	}
	return enabled, target
}

// reset does what the buttons do.
func (s *Service) reset(w http.ResponseWriter, r *http.Request) {
	var in struct{ ResetType string }
	if json.NewDecoder(r.Body).Decode(&in) != nil || !slices.Contains(resetTypes, in.ResetType) {
		refuse(w, http.StatusBadRequest, "ActionParameterNotSupported", "ResetType is not among those allowed.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	defer cancel()
	if err := s.press(ctx, in.ResetType); err != nil {
		refuse(w, http.StatusConflict, "ActionNotSupported", err.Error())
		return
	}
	s.tell(in.ResetType)
	w.WriteHeader(http.StatusNoContent)
}

func (s *Service) press(ctx context.Context, kind string) error {
	on := s.machine.On()
	switch kind {
	case "On", "ForceOn":
		if !on {
			return s.machine.Start()
		}
	case "ForceOff":
		s.machine.Stop()
	case "GracefulShutdown":
		return s.machine.Press(ctx)
	case "PushPowerButton":
		if !on {
			return s.machine.Start()
		}
		return s.machine.Press(ctx)
	case "ForceRestart":
		return s.machine.Reset(ctx)
	case "PowerCycle":
		s.machine.Stop()
		return s.machine.Start()
	}
	return nil
}

// restart is of the service itself, whose sessions end.
func (s *Service) restart(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	clear(s.sessions)
	s.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func send(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// refuse answers with an error of Redfish's own form.
func refuse(w http.ResponseWriter, status int, id, text string) {
	info := object{"@odata.type": "#Message.v1_1_1.Message", "MessageId": "Base.1.12." + id, "Message": text, "Severity": "Critical"}
	send(w, status, object{"error": object{"code": "Base.1.12.GeneralError", "message": text, "@Message.ExtendedInfo": []any{info}}})
}
