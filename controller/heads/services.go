package heads

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/service"
)

// shownService is a service as users see it.
type shownService struct {
	Name    string  `json:"name"`
	Status  string  `json:"status"` // up or down
	Enabled bool    `json:"enabled"`
	Since   float64 `json:"since,omitempty"` // seconds since 1970
	Doc     string  `json:"description,omitempty"`
	Kept    string  `json:"kept,omitempty"` // why it cannot be stopped
	// Restarting says that it goes down and up once this is answered.
	Restarting bool `json:"restarting,omitempty"`
}

func (h *Heads) services() []shownService {
	out := []shownService{}
	for _, s := range h.opt.Group().Status() {
		v := shownService{Name: s.Name, Status: "down", Enabled: s.Enabled, Doc: s.Doc, Kept: s.Kept}
		if s.Up {
			v.Status = "up"
		}
		if !s.Since.IsZero() {
			v.Since = float64(s.Since.UnixMicro()) / 1e6
		}
		out = append(out, v)
	}
	return out
}

func (h *Heads) getServices(w http.ResponseWriter, r *http.Request) error {
	return api.Data(w, h.services())
}

var actions = []string{"start", "stop", "restart", "enable", "disable", "reload"}

// maxActions bounds the actions of one request, which are done one by one.
const maxActions = 16

// work is one request: actions in order, each on all the services.
type work struct {
	actions, services []string
	door              string // the service that the request came through
	again             []string
}

// ordered is what a request wants done: actions with commas, on services.
type ordered struct {
	Status   *string   `json:"status"`
	Services *[]string `json:"services"`
}

func (h *Heads) postServices(w http.ResponseWriter, r *http.Request) error {
	var in ordered
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	if in.Status == nil || in.Services == nil {
		return fault.Invalidf("Both status (such as \"stop\" or \"enable,start\") and services (a list) are needed.")
	}
	todo := work{door: "http"}
	if r.TLS != nil {
		todo.door = "https"
	}
	if err := todo.parse(*in.Status, *in.Services, h.opt.Group().Status()); err != nil {
		return err
	}
	// A service that stops may be what the client waits behind: what was begun
	// is finished all the same.
	ctx := context.WithoutCancel(r.Context())
	from := api.CallerOf(r.Context()).Addr
	for i, action := range todo.actions {
		for _, name := range todo.services {
			if err := h.act(ctx, &todo, action, name); err != nil {
				done := "nothing was done before it"
				if i > 0 || name != todo.services[0] {
					done = "what comes before it in the request was done"
				}
				return fault.New(fault.Conflict, "%s failed: %v; %s.", action, err, done)
			}
			h.opt.Log.Info("service", "action", action, "service", name, "from", from)
		}
	}
	shown := h.services()
	for i := range shown {
		shown[i].Restarting = slices.Contains(todo.again, shown[i].Name)
	}
	if len(todo.again) > 0 {
		context.AfterFunc(r.Context(), func() { h.restart(todo.again) })
	}
	return api.Data(w, shown)
}

// parse checks everything before anything is done.
func (t *work) parse(status string, services []string, known []service.Status) error {
	for _, word := range strings.Split(status, ",") {
		word = strings.TrimSpace(word)
		if !slices.Contains(actions, word) {
			return fault.Invalidf("status: %.80q is none of %s.", word, strings.Join(actions, ", "))
		}
		t.actions = append(t.actions, word)
	}
	if len(t.actions) > maxActions {
		return fault.Invalidf("status: %d actions are too many, at most %d are taken.", len(t.actions), maxActions)
	}
	if len(services) == 0 {
		return fault.Invalidf("services: the list is empty.")
	}
	for _, name := range services {
		i := slices.IndexFunc(known, func(s service.Status) bool { return s.Name == name })
		if i < 0 {
			return fault.New(fault.NotFound, "services: there is no service %.80q on this head, only %s.", name, names(known))
		}
		if !slices.Contains(t.services, name) {
			t.services = append(t.services, name)
		}
		for _, action := range t.actions {
			if action != "stop" && action != "disable" {
				continue
			}
			if known[i].Kept != "" {
				return fault.New(fault.Conflict, "%s: it cannot be %s: %s.", name, participle(action), known[i].Kept)
			}
			if name == t.door {
				return fault.New(fault.Conflict, "%s: it cannot be %s through itself: nobody could undo that. Ask over the other of http and https.", name, participle(action))
			}
		}
	}
	return nil
}

func participle(action string) string {
	if action == "stop" {
		return "stopped"
	}
	return action + "d"
}

func names(known []service.Status) string {
	var out []string
	for _, s := range known {
		out = append(out, s.Name)
	}
	return strings.Join(out, ", ")
}

// act does one action on one service. The service that the request came
// through is restarted afterwards: it could not answer.
func (h *Heads) act(ctx context.Context, t *work, action, name string) (err error) {
	g := h.opt.Group()
	switch action {
	case "start":
		err = g.Start(name)
	case "stop":
		err = g.Stop(name)
	case "restart":
		if name == t.door {
			t.again = append(t.again, name)
			return nil
		}
		err = g.Restart(name)
	case "reload":
		if err = h.opt.Reload(); err == nil {
			err = g.Reload(ctx, name)
		}
	case "enable", "disable":
		if err = g.Enable(name, action == "enable"); err == nil {
			err = h.opt.Saved(g.Disabled())
		}
	}
	if err != nil {
		return err
	}
	return h.opt.Changed()
}

func (h *Heads) restart(names []string) {
	for _, name := range names {
		if err := h.opt.Group().Restart(name); err != nil {
			h.opt.Log.Error("a service could not be restarted", "service", name, "error", err)
		}
	}
	if err := h.opt.Changed(); err != nil {
		h.opt.Log.Error("where this head listens could not be noted", "error", err)
	}
}
