package fleet

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"

	"muster/shared/fault"
)

// bmcPrefix begins the keys of a node's hardware that its BMC tells, not the
// node. What the node reports by such names is passed over.
const bmcPrefix = "bmc_"

// Inventory notes what a node's BMC says that it is made of, in the place of
// what that said before. Its keys get bmcPrefix.
func (f *Fleet) Inventory(uid string, values map[string]any) error {
	told := map[string]json.RawMessage{}
	for key, v := range values {
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		told[bmcPrefix+key] = raw
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.get(uid)
	all, err := entriesOf("hardware", n.hardware)
	if err != nil {
		return err
	}
	if all = without(all); all == nil {
		all = map[string]json.RawMessage{}
	}
	maps.Copy(all, told)
	return f.setHardware(uid, n, all)
}

// setHardware replaces what is known, where it changed. f.mu is held.
func (f *Fleet) setHardware(uid string, n *node, entries map[string]json.RawMessage) error {
	raw, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	if len(raw) > maxSection || len(entries) > maxSectionKeys {
		return fault.New(fault.TooLarge, "hardware: %d bytes with %d keys are too much, at most %d and %d are taken.", len(raw), len(entries), maxSection, maxSectionKeys)
	}
	if !bytes.Equal(n.hardware, raw) {
		n.hardware = raw
		f.push.want(uid) // its files may tell of it
		f.touch(uid, n)
	}
	return nil
}

// without is what a node told of itself.
func without(entries map[string]json.RawMessage) map[string]json.RawMessage {
	maps.DeleteFunc(entries, func(key string, _ json.RawMessage) bool { return strings.HasPrefix(key, bmcPrefix) })
	return entries
}

// withBMC is a node's report of its hardware with what its BMC told before. The
// usual one, where no BMC told anything, stays as it came.
func (n *node) withBMC(report json.RawMessage) (json.RawMessage, error) {
	mark := []byte(`"` + bmcPrefix)
	if !bytes.Contains(n.hardware, mark) && !bytes.Contains(report, mark) {
		return report, nil
	}
	all, err := entriesOf("hardware", report)
	if err != nil {
		return nil, err
	}
	was, err := entriesOf("hardware", n.hardware)
	if err != nil {
		return nil, err
	}
	all = without(all)
	for key, v := range was {
		if strings.HasPrefix(key, bmcPrefix) {
			all[key] = v
		}
	}
	return json.Marshal(all)
}
