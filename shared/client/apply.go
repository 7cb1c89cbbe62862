package client

import (
	"context"
	"encoding/json"
	"fmt"

	"muster/shared/wire"
)

// Apply is a version of an image for running nodes. Nodes are names and
// hostlists.
type Apply struct {
	Nodes   []string `json:"nodes"`
	Version string   `json:"version,omitempty"` // a number or tag; the image's content when empty
	DryRun  bool     `json:"dry_run,omitempty"`
	Force   bool     `json:"force,omitempty"`
	Restart bool     `json:"restart,omitempty"`
	Fanout  int      `json:"fanout,omitempty"`
	Timeout float64  `json:"timeout,omitempty"` // seconds for each node
}

// Applied is what a node is about to do, or did: with Status it is its last
// line.
type Applied struct {
	Node    string  `json:"node"`
	Image   string  `json:"image"`
	From    int     `json:"from"`
	To      int     `json:"to"`
	Off     bool    `json:"off"`
	Plan    bool    `json:"plan"`
	Boots   string  `json:"boots"`
	Status  *int    `json:"status"`
	Seconds float64 `json:"seconds"`
	wire.Applied
	Raw json.RawMessage `json:"-"` // the line as the head sent it
}

// ApplyImage changes nodes to a version of an image, and gives each line of the
// answer to fn as it comes, one at a time. A node where it fails is no error.
// Ending ctx ends it on every node that has not begun to change.
func (c *Client) ApplyImage(ctx context.Context, image string, a Apply, fn func(Applied) error) error {
	return c.lines(ctx, Path("image", image, "apply"), a, func(raw []byte) error {
		var l Applied
		if err := json.Unmarshal(raw, &l); err != nil {
			return fmt.Errorf("the head's answer cannot be read: %w", err)
		}
		l.Raw = raw
		return fn(l)
	})
}
