package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"muster/shared/fault"
)

// Event is something that changed.
type Event struct {
	Revision uint64          `json:"revision"`
	Change   string          `json:"change"` // create, change, delete or state
	Kind     string          `json:"kind"`
	UID      string          `json:"uid"`
	Name     string          `json:"name"`
	State    string          `json:"state"`
	Since    float64         `json:"since"` // of the state, in seconds since 1970
	Reason   string          `json:"reason"`
	More     bool            `json:"more"` // the commit goes on in the next event
	Object   json.RawMessage `json:"object"`
	Raw      json.RawMessage `json:"-"` // as it came
}

// Follow says which events are wanted; the zero value is all from now on.
type Follow struct {
	Kinds    []string
	Selector string  // only nodes that it picks
	After    *uint64 // only what changed after this revision
}

// maxEvent bounds one event, in bytes.
const maxEvent = 4 << 20

// Events calls fn with events as they come, until fn gives an error, which is
// returned, or the stream ends, which is an Unavailable fault with the reason:
// go on after the last revision seen. Gone is given for one that is too old.
func (c *Client) Events(ctx context.Context, f Follow, fn func(Event) error) error {
	q := url.Values{}
	if len(f.Kinds) > 0 {
		q.Set("kind", strings.Join(f.Kinds, ","))
	}
	if f.Selector != "" {
		q.Set("selector", f.Selector)
	}
	if f.After != nil {
		q.Set("after", strconv.FormatUint(*f.After, 10))
	}
	resp, err := c.do(ctx, request{method: "GET", path: Path("events") + "?" + q.Encode()})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	why := "the connection broke off"
	for name := ""; lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case field == "":
			name = ""
		case field == "event":
			name = value
		case field == "data" && name == "end":
			var end struct{ Reason string }
			if json.Unmarshal([]byte(value), &end) == nil && end.Reason != "" {
				why = end.Reason
			}
		case field == "data":
			e := Event{Raw: json.RawMessage(value)}
			if err := json.Unmarshal(e.Raw, &e); err != nil {
				return fmt.Errorf("an event of %s has another form than this program knows: %w", c.base, err)
			}
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &fault.Error{Code: fault.Unavailable, Err: lines.Err(), Reason: "The events ended: " + why}
}

// Record is an entry of the audit trail.
type Record struct {
	ID      string            `json:"id"`
	Time    float64           `json:"time"`
	Admin   string            `json:"admin"`
	From    string            `json:"from"`
	Head    string            `json:"head"`
	Action  string            `json:"action"`
	Kind    string            `json:"kind"`
	UID     string            `json:"uid"`
	Name    string            `json:"name"`
	Changes map[string]Delta  `json:"changes"`
	Detail  map[string]string `json:"detail"`
}

// Delta is a value's change; a side is nil where there was or is none.
type Delta struct {
	From json.RawMessage `json:"from"`
	To   json.RawMessage `json:"to"`
}

// Audit gives the records that the filters of GET /audit pick, oldest first.
func (c *Client) Audit(ctx context.Context, filters url.Values) ([]json.RawMessage, error) {
	var out []json.RawMessage
	err := c.Call(ctx, "GET", Path("audit")+"?"+filters.Encode(), nil, &out)
	return out, err
}
