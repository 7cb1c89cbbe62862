package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/url"

	"muster/shared/hostlist"
)

// PowerOrder is what is to be done to the power of many nodes; State "status"
// only asks. The zero value of what else there is leaves it to the head.
type PowerOrder struct {
	Nodes   []string `json:"nodes"`
	State   string   `json:"state"`
	Force   bool     `json:"force,omitempty"`
	Steps   []any    `json:"steps,omitempty"`
	Limit   int      `json:"limit,omitempty"`
	Stagger float64  `json:"stagger,omitempty"` // seconds
	Retries int      `json:"retries,omitempty"`
	Timeout float64  `json:"timeout,omitempty"` // seconds
}

// PowerResult is what came of it at one node, or, with Pending, that it takes
// longer than usual.
type PowerResult struct {
	Node    string  `json:"node"`
	State   string  `json:"state"`
	Step    string  `json:"step,omitempty"`
	Pending string  `json:"pending,omitempty"`
	Error   string  `json:"error,omitempty"`
	Status  int     `json:"status,omitempty"`
	Seconds float64 `json:"seconds"`
}

// maxPowerLine bounds a line of the answer in bytes.
const maxPowerLine = 1 << 20

// Power orders it, and calls each for every result as it comes.
func (c *Client) Power(ctx context.Context, o PowerOrder, each func(PowerResult)) error {
	rq := request{method: "POST", path: Path("power"), kind: "application/json"}
	if o.State == "status" {
		q := url.Values{"nodes": {hostlist.Fold(o.Nodes)}}
		for name, v := range map[string]float64{"limit": float64(o.Limit), "retries": float64(o.Retries), "timeout": o.Timeout} {
			if v > 0 {
				q.Set(name, fmt.Sprint(v))
			}
		}
		rq = request{method: "GET", path: Path("power") + "?" + q.Encode()}
	} else {
		body, err := encode(o)
		if err != nil {
			return err
		}
		rq.body, rq.size = rewindable(body), int64(len(body))
	}
	resp, err := c.do(ctx, rq)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxPowerLine)
	var n int64
	for lines.Scan() {
		var r PowerResult
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("the answer of %s has another form than this program knows: %w", c.base, err)
		}
		n += int64(len(lines.Bytes())) + 1
		each(r)
	}
	if err := lines.Err(); err != nil {
		return c.broke(ctx, err, n)
	}
	return nil
}
