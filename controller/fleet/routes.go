package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"time"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

func (f *Fleet) node(id string) (*object.Node, error) {
	obj, err := f.opt.Nodes.Find(object.KindNode, id)
	if err != nil {
		return nil, err
	}
	return obj.(*object.Node), nil
}

func (f *Fleet) serveEnrol(w http.ResponseWriter, r *http.Request) error {
	if r.TLS == nil {
		return fault.Invalidf("Enrolment needs TLS: a key in clear could be read by others.")
	}
	var e wire.Enrol
	if err := api.Decode(w, r, &e); err != nil {
		return err
	}
	addr := api.CallerOf(r.Context()).Addr
	uid, ok := f.enrolsAt(addr)
	if !ok {
		obj, found := f.opt.Nodes.Look().Find(object.KindNode, "ip", addr.String())
		if !found {
			return fault.New(fault.NotFound, "No node found for ID=%s", addr)
		}
		uid = obj.Base().UID
	}
	got, err := f.Enrol(r.Context(), uid, addr, e)
	if err != nil {
		return err
	}
	f.Stamp(uid, wire.Step{Step: wire.StepEnrol})
	return api.Data(w, got)
}

func (f *Fleet) serveBoot(w http.ResponseWriter, r *http.Request) error {
	b, err := f.opt.Boot.Boot(api.CallerOf(r.Context()).Node, r.URL.Query().Get(wire.QueryConfig), r.URL.Query().Get(wire.QueryImage))
	if err != nil {
		return err
	}
	return api.Data(w, b)
}

func (f *Fleet) serveStep(w http.ResponseWriter, r *http.Request) error {
	var s wire.Step
	if err := api.Decode(w, r, &s); err != nil {
		return err
	}
	if !known(s.Step) {
		return fault.Invalidf("step: %q is not a step that an agent stamps.", s.Step)
	}
	if len(s.Image) > 2*sha256.Size {
		return fault.Invalidf("image: %d bytes are no SHA-256.", len(s.Image))
	}
	uid := api.CallerOf(r.Context()).Node
	if s.Step == wire.StepInit {
		f.opt.Log.Warn("an init script failed", "node", uid, "script", clip(s.Detail), "error", clip(s.Error))
		f.annotate(uid, note{Step: s.Step, Detail: s.Detail, Error: s.Error})
		return api.OK(w)
	}
	if s.Error != "" {
		f.opt.Log.Warn("a boot step failed", "node", uid, "step", s.Step, "error", clip(s.Error))
	}
	f.Stamp(uid, s)
	return api.OK(w)
}

// reported is the body of putstatus. UID is there to be refused where the
// caller's address or certificate says which node it is.
type reported struct {
	UID      json.RawMessage `json:"uid"`
	Status   json.RawMessage `json:"status"`
	Hardware json.RawMessage `json:"hardware"`
	Keep     []string        `json:"keep"`
	Report   string          `json:"report"`
	Since    string          `json:"since"`
	Drop     []string        `json:"drop"`
}

func (f *Fleet) putOwnStatus(w http.ResponseWriter, r *http.Request) error {
	var in reported
	err := api.Decode(w, r, &in)
	if err := f.ownReport(api.CallerOf(r.Context()).Node, &in, err); err != nil {
		return err
	}
	return api.OK(w)
}

// ownReport takes what a node reports of itself, or notes why that cannot be
// read.
func (f *Fleet) ownReport(uid string, in *reported, err error) error {
	if err != nil {
		f.note(uid, wire.PathStatus, err)
		return err
	}
	if in.UID != nil {
		return fault.Invalidf("uid: the node is the one that asks; POST takes a uid.")
	}
	return f.report(uid, *in)
}

func (f *Fleet) putStatus(w http.ResponseWriter, r *http.Request) error {
	var in reported
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	var id string
	if in.UID == nil || json.Unmarshal(in.UID, &id) != nil || id == "" {
		return fault.Invalidf("uid: which node is this the status of?")
	}
	n, err := f.node(id)
	if err != nil {
		return err
	}
	if err := f.report(n.UID, in); err != nil {
		return err
	}
	return api.OK(w)
}

func (f *Fleet) report(uid string, in reported) error {
	if in.Status == nil && in.Hardware == nil {
		return fault.Invalidf("Neither status nor hardware was sent.")
	}
	return f.Report(uid, Report{in.Status, in.Hardware, in.Keep, in.Report, in.Since, in.Drop})
}

func (f *Fleet) putOwnAttributes(w http.ResponseWriter, r *http.Request) error {
	in, err := attributes(w, r)
	if err != nil {
		return err
	}
	if _, ok := in["uid"]; ok {
		return fault.Invalidf("uid: the node is the one that asks; POST takes a uid.")
	}
	uid := api.CallerOf(r.Context()).Node
	// What decides over nodes is not for them to write.
	node := kind.Author{Name: "node " + uid, Can: func(kind.Permission) bool { return false }}
	return f.addAttributes(w, r, node, uid, in)
}

func (f *Fleet) putAttributes(w http.ResponseWriter, r *http.Request) error {
	in, err := attributes(w, r)
	if err != nil {
		return err
	}
	var id string
	if json.Unmarshal(in["uid"], &id) != nil || id == "" {
		return fault.Invalidf("uid: which node are these attributes for?")
	}
	delete(in, "uid")
	return f.addAttributes(w, r, api.By(r), id, in)
}

func attributes(w http.ResponseWriter, r *http.Request) (map[string]json.RawMessage, error) {
	raw, err := api.Body(w, r)
	if err != nil {
		return nil, err
	}
	var in map[string]json.RawMessage
	if raw == nil || json.Unmarshal(raw, &in) != nil || in == nil {
		return nil, fault.Invalidf("The body must be a JSON object.")
	}
	return in, nil
}

func (f *Fleet) addAttributes(w http.ResponseWriter, r *http.Request, by kind.Author, id string, in map[string]json.RawMessage) error {
	err := f.opt.Nodes.Set(r.Context(), by, object.KindNode, id, "attributes", func(now json.RawMessage) (json.RawMessage, error) {
		all := map[string]json.RawMessage{}
		if err := json.Unmarshal(now, &all); err != nil {
			return nil, err
		}
		maps.Copy(all, in)
		return json.Marshal(all)
	})
	if err != nil {
		return err
	}
	return api.OK(w)
}

func (f *Fleet) getStatus(w http.ResponseWriter, r *http.Request) error {
	n, err := f.node(r.PathValue("id"))
	if err != nil {
		return err
	}
	status, err := f.Status(n.UID)
	if err != nil {
		return err
	}
	return api.Data(w, status)
}

// stateHistory is a node's state and how it came about.
type stateHistory struct {
	State   string        `json:"state"`
	Since   float64       `json:"since,omitempty"` // seconds since 1970
	Reason  string        `json:"reason,omitempty"`
	Changes []stateChange `json:"changes"`
}

type stateChange struct {
	State  string  `json:"state"`
	Time   float64 `json:"time"`
	Reason string  `json:"reason"`
}

func (f *Fleet) getState(w http.ResponseWriter, r *http.Request) error {
	n, err := f.node(r.PathValue("id"))
	if err != nil {
		return err
	}
	out := stateHistory{State: Unknown, Changes: []stateChange{}}
	for _, c := range f.Changes(n.UID) {
		out.State, out.Since, out.Reason = c.State, seconds(c.Time), c.Reason
		out.Changes = append(out.Changes, stateChange{c.State, seconds(c.Time), c.Reason})
	}
	return api.Data(w, out)
}

func (f *Fleet) getTimeline(w http.ResponseWriter, r *http.Request) error {
	n, err := f.node(r.PathValue("id"))
	if err != nil {
		return err
	}
	return api.Data(w, f.Timeline(n.UID))
}

func (f *Fleet) deleteIdentity(w http.ResponseWriter, r *http.Request) error {
	n, err := f.node(r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := f.Disown(r.Context(), n.UID); err != nil {
		return err
	}
	return api.OK(w)
}

// maxWait bounds how long a request may wait for a change, and settle is how
// long one that has come waits for more: when a thousand nodes boot, who waits
// must not get all states a thousand times.
const (
	maxWait = 55 * time.Second
	settle  = 100 * time.Millisecond
)

// allStates is the answer of /nodes/states.
type allStates struct {
	Seq    uint64            `json:"seq"`
	States map[string]string `json:"states"`
}

func (f *Fleet) getStates(w http.ResponseWriter, r *http.Request) error {
	if text := r.URL.Query().Get("after"); text != "" {
		after, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fault.Invalidf("after: %q is not a number that an earlier answer gave.", text)
		}
		ctx, cancel := context.WithTimeout(r.Context(), maxWait)
		if _, now, _, _ := f.StatesAfter(after); now == after {
			f.WaitChange(ctx, after)
			sleep(ctx, settle)
		}
		cancel()
	}
	seq, states := f.States()
	return api.Data(w, allStates{seq, states})
}

func (f *Fleet) whereAmI(w http.ResponseWriter, r *http.Request) error {
	addr := api.CallerOf(r.Context()).Addr.String()
	obj, ok := f.opt.Nodes.Look().Find(object.KindNode, "ip", addr)
	if !ok {
		return fault.New(fault.NotFound, "No node found for ID=%s", addr)
	}
	n := obj.(*object.Node)
	return api.Data(w, map[string]string{"uid": n.UID, "name": n.Name})
}
