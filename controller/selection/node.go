package selection

import (
	"encoding/json"

	"muster/shared/kind"
	"muster/shared/object"
)

// field gives a field of the node itself.
func field(look kind.Look, n *object.Node, name string) (any, bool) {
	switch name {
	case "uid":
		return n.UID, true
	case "name", "hostname":
		return n.Name, true
	case "mac":
		return n.MAC, true
	case "ip":
		return n.IP, true
	case "index":
		return n.Index, true
	case "type":
		return n.Type, true
	case "description":
		return n.Description, n.Description != ""
	case "power_uri":
		return n.PowerURI, n.PowerURI != nil
	case "redfish_uri":
		return n.RedfishURI, n.RedfishURI != ""
	case "groups":
		return n.Groups, true
	case "naming_pool": // its name, as a node is shown with
		if o, ok := look.Get(object.KindNamingpool, n.NamingPool); ok {
			return o.(*object.Namingpool).Name, true
		}
	}
	return nil, false
}

// inGroup says whether the node names the attribute group among its own.
func inGroup(look kind.Look, n *object.Node, name string) bool {
	for _, uid := range n.Groups {
		if uid == name {
			return true
		}
		if g, ok := look.Get(object.KindAttrib, uid); ok && g.(*object.Attrib).Name == name {
			return true
		}
	}
	return false
}

// status gives one entry of what a node reported, or of what the head knows of
// its state.
func status(live Live, uid, key string) (any, bool) {
	switch key {
	case "state":
		var state [1]string
		live.StatesOf([]string{uid}, state[:])
		return state[0], true
	case "since", "reason", "reported":
		all, err := live.Status(uid)
		if err != nil {
			return nil, false
		}
		v, ok := all[key]
		return v, ok
	}
	raw, _, _ := live.Reported(uid)
	return entry(raw, key)
}

func hardware(live Live, uid, key string) (any, bool) {
	_, raw, _ := live.Reported(uid)
	return entry(raw, key)
}

// entry decodes one value of a JSON object; the rest is only passed over.
func entry(raw []byte, key string) (any, bool) {
	if len(raw) == 0 {
		return nil, false
	}
	value, ok := find(raw, key)
	if !ok {
		return nil, false
	}
	var v any
	if json.Unmarshal(value, &v) != nil {
		return nil, false
	}
	return v, true
}
