// Package power switches nodes: through their agents, and through their BMCs,
// which power_uri and redfish_uri name. Each way to reach a BMC is a package
// below this one, behind the interface of package bmc.
//
// An answer comes within 15 seconds whatever a BMC does: what takes longer goes
// on, and the answer says so. It must not let one BMC hold up another, nor let
// a password into a log, an error or a list of processes; and it does not know
// where the values in a template come from.
package power

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"muster/controller/api"
	"muster/controller/power/bmc"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/template"
)

// Objects is what the package needs of the registry.
type Objects interface {
	Find(kindName, id string) (kind.Object, error)
}

// Agents is what the package needs of nodes' agents.
type Agents interface {
	// Connected says whether a node's agent has its link.
	Connected(uid string) bool
	// Run runs a shell command on a node and returns when it has ended, or when
	// the link broke off, which is no error. By is the admin, for the node's log.
	Run(ctx context.Context, uid, by, command string) error
}

// Power serves the endpoints.
type Power struct {
	Objects Objects
	Agents  Agents
	// Values gives what the templates in a node's power_uri look up.
	Values func(n *object.Node) func(s template.Section, key string) (any, bool)
	// Select gives the nodes that a selector picks which by may write.
	Select func(ctx context.Context, by kind.Author, selector string) ([]*object.Node, error)
	// Made notes what a node's BMC says that it is made of.
	Made func(uid string, inventory map[string]any) error
	// Record notes what an admin does to a node. It has to be on disk before that is done.
	Record  func(ctx context.Context, by kind.Author, n *object.Node, detail map[string]string) error
	Schemes map[string]bmc.Scheme
	Log     *slog.Logger

	pool pool
	mu   sync.Mutex
	busy map[string]*job // by the node's UID
}

// Every answer comes within answerTime; a BMC that is asked once has callTime.
const (
	answerTime = 13 * time.Second
	callTime   = 10 * time.Second
)

// Routes are the endpoints.
func (p *Power) Routes() []api.Route {
	const node = api.Root + "/node/{id}/"
	const control = kind.NodesPowerControl
	return []api.Route{
		{Method: "GET", Path: node + "power_uri", Permission: "NodesRead", Doc: "The URI of the node's BMC with its values filled in, whole and in parts.", Handler: p.getURI, Answer: filled{}},
		{Method: "GET", Path: node + "power_state", Permission: "NodesRead", Doc: "Whether the node is on, off or unknown; reason says why it is unknown.", Handler: p.getState, Answer: ""},
		{Method: "PUT", Path: node + "power_state", Permission: control, Doc: "Switch the node: state is on, off, soft, cycle or reset, with or without power before it. Off asks the system to shut down first, unless force is true; steps gives an own order. " +
			"The header " + headerStep + " says which step did it, and so does data where steps were given.", Handler: p.putState, Body: order{}, Answer: api.Maybe{Of: stepDone{}}},
		{Method: "GET", Path: api.Root + "/power", Permission: "NodesRead", Doc: "The power states of many nodes, as a line of JSON for each as soon as it is known.", Handler: p.getMany, Raw: api.NDJSON,
			Query: []api.Param{{Name: "nodes", Doc: "a set such as n[0-3,7]"}, {Name: "selector", Doc: "nodes by what they are"}, {Name: "limit", Doc: "how many at once", Type: "integer"}, {Name: "timeout", Doc: "seconds for each node, 10 when not given", Type: "number"}, {Name: "retries", Doc: "how often to ask again", Type: "integer"}}},
		{Method: "POST", Path: api.Root + "/power", Permission: control, Doc: "Switch many nodes; a line of JSON for each comes as soon as it is done.", Handler: p.postMany, Raw: api.NDJSON, Body: many{}},
		{Method: "PUT", Path: node + "boot_device", Permission: control, Doc: "What the node boots from the next time, or always: pxe, disk, cdrom, bios, or none for the firmware's own order.", Handler: p.putBoot, Body: bootOrder{}, Answer: api.Nothing{}},
		{Method: "GET", Path: node + "sensors", Permission: "NodesRead", Doc: "The readings of the node's BMC.", Handler: p.getSensors, Answer: []bmc.Sensor{}},
		{Method: "GET", Path: node + "sel", Permission: "NodesRead", Doc: "The BMC's system event log, oldest record first.", Handler: p.getEvents, Answer: []bmc.Event{}},
		{Method: "DELETE", Path: node + "sel", Permission: control, Doc: "Clear the BMC's system event log.", Handler: p.deleteEvents, Answer: api.Nothing{}},
		{Method: "PUT", Path: node + "identify", Permission: control, Doc: "Switch the node's identify light on, for some seconds or for good, or off.", Handler: p.putIdentify, Body: light{}, Answer: api.Nothing{}},
		{Method: "POST", Path: node + "bmc/reset", Permission: control, Doc: "Restart the BMC itself, cold or warm; the node runs on.", Handler: p.postReset, Body: restart{}, Answer: api.Nothing{}},
		{Method: "GET", Path: node + "inventory", Permission: "NodesRead", Doc: "What the BMC knows of the node's parts and firmware versions; it goes into the node's hardware too, under names that begin with bmc_.", Handler: p.getInventory, Answer: bmc.Inventory{}},
	}
}

func (p *Power) node(r *http.Request) (*object.Node, error) {
	o, err := p.Objects.Find(object.KindNode, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return o.(*object.Node), nil
}

// filled is a power_uri with its values.
type filled struct {
	Parsed   *URI   `json:"parsed"`
	Unparsed string `json:"unparsed"`
}

func (p *Power) getURI(w http.ResponseWriter, r *http.Request) error {
	n, err := p.node(r)
	if err != nil {
		return err
	}
	if n.PowerURI == nil || *n.PowerURI == "" {
		return fault.New(fault.NotFound, "The node %s has no power_uri: muster node update %s --power-uri ipmi://USER:PASSWORD@ADDRESS/ipmi", n.Name, n.Name)
	}
	if err := mayRead(api.CallerOf(r.Context()), n); err != nil {
		return err
	}
	uri, err := Parse(*n.PowerURI, p.Values(n))
	if err != nil {
		return fault.New(fault.Conflict, "The power_uri of node %s cannot be used: %v.", n.Name, err)
	}
	return api.Data(w, filled{uri, uri.Text})
}

func (p *Power) getState(w http.ResponseWriter, r *http.Request) error {
	n, err := p.node(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTime)
	defer cancel()
	state, why := p.state(ctx, n)
	answer := struct {
		Success bool      `json:"success"`
		Data    bmc.State `json:"data"`
		Reason  string    `json:"reason,omitempty"`
	}{true, state, ""}
	if why != nil {
		answer.Reason = fault.Of(why).Reason
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(append(raw, '\n'))
	return err
}

// state asks a node's BMC, or its agent's link where there is none. Unknown
// comes with a fault that says why.
func (p *Power) state(ctx context.Context, n *object.Node) (bmc.State, error) {
	targets, err := p.targets(n)
	if err != nil {
		return bmc.Unknown, err
	}
	if len(targets) == 0 {
		if p.Agents.Connected(n.UID) {
			return bmc.On, nil
		}
		return bmc.Unknown, fault.New(fault.Conflict, "The node %s has no BMC that could be asked, and its agent is not connected: muster node update %s --power-uri ipmi://USER:PASSWORD@ADDRESS/", n.Name, n.Name)
	}
	state := bmc.Unknown
	err = p.at(ctx, n, targets, asking, func(ctx context.Context, m bmc.Machine) (err error) {
		state, err = m.State(ctx)
		return err
	})
	if err != nil {
		return bmc.Unknown, err
	}
	return state, nil
}

// at runs fn at the first target that supports it.
func (p *Power) at(ctx context.Context, n *object.Node, targets []bmc.Target, why purpose, fn func(context.Context, bmc.Machine) error) (err error) {
	for _, t := range targets {
		call, cancel := context.WithTimeout(ctx, callTime)
		err = p.pool.with(call, p.Schemes[t.Scheme], t, why, fn)
		cancel()
		if err == nil {
			return nil
		}
		unsupported := errors.Is(err, bmc.ErrUnsupported)
		if err = failed(n, t, err); !unsupported {
			return err
		}
	}
	return err
}
