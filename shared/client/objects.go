package client

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
)

// What follows names a class by its plural word ("nodes"), one object by its
// kind's word and any identifier ("node", "n0"), as paths do. An object without
// an identifier is a singleton ("cluster", "").

// List gives every object of a class by UID; T is the kind's struct, or
// json.RawMessage.
func List[T any](ctx context.Context, c *Client, plural string) (map[string]T, error) {
	out := map[string]T{}
	err := c.Call(ctx, "GET", Path(plural), nil, &out)
	return out, err
}

// Get gives one object.
func Get[T any](ctx context.Context, c *Client, kind, id string) (T, error) {
	var out T
	err := c.Call(ctx, "GET", object(kind, id), nil, &out)
	return out, err
}

func object(kind, id string) string {
	if id == "" {
		return Path(kind)
	}
	return Path(kind, id)
}

// Create makes an object of the fields and gives its UID.
func (c *Client) Create(ctx context.Context, plural string, fields any) (uid string, err error) {
	err = c.Call(ctx, "POST", Path(plural), fields, &uid)
	return uid, err
}

// Patch changes the fields that are given; null unsets one.
func (c *Client) Patch(ctx context.Context, kind, id string, fields any) error {
	return c.Call(ctx, "PATCH", object(kind, id), fields, nil)
}

// Delete deletes it for good.
func (c *Client) Delete(ctx context.Context, kind, id string) error {
	return c.Call(ctx, "DELETE", object(kind, id), nil, nil)
}

// Sub reads or changes a field that is reachable for itself.
func (c *Client) Sub(ctx context.Context, method, kind, id, field string, in, out any) error {
	return c.Call(ctx, method, Path(kind, id, field), in, out)
}

// Who is the admin that a token speaks for.
type Who struct {
	Name  string   `json:"userid"`
	UID   string   `json:"uid"`
	Roles []string `json:"roles"`
}

// Whoami says as whom the head knows us.
func (c *Client) Whoami(ctx context.Context) (Who, error) {
	var w Who
	err := c.Call(ctx, "GET", Path("whoami"), nil, &w)
	return w, err
}

// States gives every node's state by name. With a sequence number that an
// earlier call gave it returns when some state has changed since, or after
// about a minute; with 0 at once.
func (c *Client) States(ctx context.Context, after uint64) (seq uint64, states map[string]string, err error) {
	path := Path("nodes", "states")
	if after > 0 {
		path += "?" + url.Values{"after": {strconv.FormatUint(after, 10)}}.Encode()
	}
	var out struct {
		Seq    uint64            `json:"seq"`
		States map[string]string `json:"states"`
	}
	err = c.Call(ctx, "GET", path, nil, &out)
	return out.Seq, out.States, err
}

// Step is one entry of a node's boot timeline.
type Step struct {
	Boot   int     `json:"boot"` // counts the node's boots
	Step   string  `json:"step"`
	Time   float64 `json:"time"` // seconds since 1970
	Detail string  `json:"detail,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// Timeline gives the steps of a node's boots, oldest first.
func (c *Client) Timeline(ctx context.Context, node string) ([]Step, error) {
	var out []Step
	err := c.Sub(ctx, "GET", "node", node, "timeline", nil, &out)
	return out, err
}

// Status gives all that a node last reported, with its state.
func (c *Client) Status(ctx context.Context, node string) (json.RawMessage, error) {
	var out json.RawMessage
	err := c.Sub(ctx, "GET", "node", node, "status", nil, &out)
	return out, err
}
