// Package apply brings running nodes to a version of an image, in place: it
// tells each node's agent what its version and the wanted one differ in, and
// tells the admin, line by line, what became of it.
//
// What a node runs is what the node says, since that is noted in its root. The
// files are changed by agent/apply. The package must not decide which version
// a node boots, and says where that is another one.
package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"muster/controller/api"
	"muster/images/tree"
	"muster/shared/fault"
	"muster/shared/hostlist"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// Images are those that the head keeps.
type Images interface {
	// Version finds what the agents are told of a version of an image.
	Version(image, version string) (wire.Image, error)
	// Files gives the files of a version by the digest of its tree; an error
	// where the head does not keep it any more.
	Files(digest string) (*tree.Manifest, error)
}

// Agents are the nodes' agents.
type Agents interface {
	// Entered says why a node's agent is not connected from inside its image.
	Entered(uid string) error
	Open(ctx context.Context, uid string, h wire.Header) (net.Conn, error)
}

// Set says which nodes, as the exec endpoint does.
type Set struct {
	Nodes    json.RawMessage `json:"nodes,omitempty"`
	Selector string          `json:"selector,omitempty"`
	Group    string          `json:"group,omitempty"`
}

// Apply serves it. Every field is required.
type Apply struct {
	Images Images
	Agents Agents
	Log    *slog.Logger
	// Targets gives the nodes of a set, and by name why there are none.
	Targets func(ctx context.Context, by kind.Author, s Set) (nodes []*object.Node, unknown map[string]string, err error)
	// Boots gives which version a node boots next, and the name of the boot
	// configuration that pins it; nil where it boots none.
	Boots func(n *object.Node) (image *wire.Image, pinned string)
	// Rules gives what a node's attribute says of services to restart.
	Rules func(n *object.Node) string
	// Runs is told of a node that runs a version from now on.
	Runs func(uid string, image wire.Image)
	// Record notes in the audit trail what is about to be done.
	Record func(ctx context.Context, by kind.Author, image wire.Image, detail map[string]string) error

	busy atomic.Int32
}

// Bounds: requests at once on this head, nodes at once, and how long one node
// may take.
const (
	maxRequests   = 16
	maxFanout     = 4096
	defaultFanout = 256
	defaultTime   = time.Hour
)

// request is the body.
type request struct {
	Set
	Version string  `json:"version,omitempty"` // a number or tag; the image's content when empty
	DryRun  bool    `json:"dry_run,omitempty"`
	Force   bool    `json:"force,omitempty"`
	Restart bool    `json:"restart,omitempty"`
	Fanout  int     `json:"fanout,omitempty"`  // nodes at once
	Timeout float64 `json:"timeout,omitempty"` // seconds for each node
}

// Routes are the endpoints.
func (a *Apply) Routes() []api.Route {
	return []api.Route{{
		Method: "POST", Path: api.Root + "/image/{id}/apply", Permission: kind.NodesExecCommand, Raw: api.NDJSON, Body: request{}, Handler: a.serve,
		Doc: "Change the files of running nodes to a version of the image; each line of the answer is a JSON object with a node and its plan, or what became of it with a status, as they come.",
	}}
}

func (r *request) check() error {
	if r.Fanout == 0 {
		r.Fanout = defaultFanout
	}
	if r.Timeout == 0 {
		r.Timeout = defaultTime.Seconds()
	}
	switch {
	case r.Fanout < 1 || r.Fanout > maxFanout:
		return fault.Invalidf("fanout: from 1 to %d nodes at once, not %d.", maxFanout, r.Fanout)
	case !(r.Timeout > 0 && r.Timeout <= 1e6):
		return fault.Invalidf("timeout: %v is not a number of seconds.", r.Timeout)
	}
	return nil
}

func (a *Apply) serve(w http.ResponseWriter, r *http.Request) error {
	var in request
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	image, err := a.Images.Version(r.PathValue("id"), in.Version)
	if err != nil {
		return err
	}
	if image.Tree == "" {
		return fault.New(fault.Conflict, "Version %d of %s has no files that could be applied: what was uploaded is no sound squashfs, or from before muster kept files; import it again.", image.Version, image.Name)
	}
	nodes, unknown, err := a.Targets(r.Context(), api.By(r), in.Set)
	if err != nil {
		return err
	}
	if a.busy.Add(1) > maxRequests {
		a.busy.Add(-1)
		return fault.New(fault.TooMany, "Images are being applied by %d requests already: wait until some have ended.", maxRequests)
	}
	defer a.busy.Add(-1)
	if err := a.note(r.Context(), api.By(r), image, nodes, &in); err != nil {
		return err
	}
	j := newJob(a, &in, image, api.CallerOf(r.Context()).Admin)
	return j.run(w, r, nodes, unknown)
}

// note records what is about to be done. A dry run changes nothing.
func (a *Apply) note(ctx context.Context, by kind.Author, image wire.Image, nodes []*object.Node, in *request) error {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	detail := map[string]string{"nodes": hostlist.Fold(names), "count": strconv.Itoa(len(nodes)), "version": strconv.Itoa(image.Version)}
	for word, on := range map[string]bool{"force": in.Force, "restart": in.Restart} {
		if on {
			detail[word] = "true"
		}
	}
	if in.DryRun {
		return nil
	}
	a.Log.Info("an image is applied", "image", image.Name, "version", image.Version, "nodes", detail["nodes"], "count", len(nodes), "admin", by.Name, "force", in.Force)
	return a.Record(ctx, by, image, detail)
}

// line is one of the answer: with Status it is the node's last one.
type line struct {
	Node    string  `json:"node"`
	Image   string  `json:"image,omitempty"`
	From    int     `json:"from,omitempty"` // the version that the node ran
	To      int     `json:"to,omitempty"`
	Off     bool    `json:"off,omitempty"` // it does not run; Boots says what it comes up with
	Plan    bool    `json:"plan,omitempty"`
	DryRun  bool    `json:"dry_run,omitempty"`
	Boots   string  `json:"boots,omitempty"` // what it boots next, where that is another version
	Status  *int    `json:"status,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	wire.Applied
}

// name writes a version as the command line takes it.
func name(i wire.Image) string { return fmt.Sprintf("%s:%d", i.Name, i.Version) }
