package metrics

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// influxBatch is how many lines go into one request, and influxTime how long
// one may take.
const (
	influxBatch = 5000
	influxTime  = 15 * time.Second
)

// Influx writes the nodes' numbers to InfluxDB in its line protocol.
type Influx struct {
	Metrics *Metrics
	URL     string        // such as http://influx:8086/api/v2/write?org=o&bucket=b
	Token   func() string // of the cluster's record; empty: none is sent
	Every   time.Duration
	Client  *http.Client
	Log     *slog.Logger
}

// Run writes until ctx ends, at multiples of the period. What is not taken is
// dropped: the next write is newer.
func (i *Influx) Run(ctx context.Context) error {
	said := ""
	for {
		now := time.Now()
		timer := time.NewTimer(now.Truncate(i.Every).Add(i.Every).Sub(now))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		err := i.write(ctx)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != said && ctx.Err() == nil {
			if said = text; err != nil {
				i.Log.Warn("InfluxDB does not take the nodes' numbers", "url", i.place(), "error", err)
			} else {
				i.Log.Info("InfluxDB takes the nodes' numbers again", "url", i.place())
			}
		}
	}
}

// place is the URL without what may be a secret.
func (i *Influx) place() string {
	place, _, _ := strings.Cut(i.URL, "?")
	return place
}

func (i *Influx) write(ctx context.Context) error {
	var lines []string
	at := i.Metrics.opt.Now()
	for _, n := range i.Metrics.opt.Nodes() {
		lines = append(lines, influxLines(n, at)...)
		if len(lines) >= influxBatch {
			if err := i.post(ctx, lines); err != nil {
				return err
			}
			lines = lines[:0]
		}
	}
	return i.post(ctx, lines)
}

// influxLines are those of one node: muster_node with what is of the node
// itself, and one for each file system, interface and so on.
func influxLines(n Node, at time.Time) []string {
	type group struct{ label, of string }
	fields, order := map[group][]string{}, []group{{}}
	fields[group{}] = []string{`state="` + n.State + `"`, "up=" + strconv.FormatBool(n.State == "up")}
	if n.State == "up" {
		for _, r := range read(n) {
			g := group{r.label, r.of}
			if fields[g] == nil {
				order = append(order, g)
			}
			if !math.IsNaN(r.value) {
				fields[g] = append(fields[g], r.name+"="+strconv.FormatFloat(r.value, 'g', -1, 64))
			}
		}
	}
	out := make([]string, 0, len(order))
	for _, g := range order {
		line := "muster_node,node=" + influxTag(n.Name)
		if g.label != "" && g.of != "" {
			line += "," + g.label + "=" + influxTag(g.of)
		}
		out = append(out, line+" "+strings.Join(fields[g], ",")+" "+strconv.FormatInt(at.UnixNano(), 10))
	}
	return out
}

// influxTag escapes the value of a tag. One must not end in a backslash, and
// has no form for a line break.
func influxTag(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == '\\' {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.NewReplacer(",", `\,`, "=", `\=`, " ", `\ `).Replace(s)
}

func (i *Influx) post(ctx context.Context, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, influxTime)
	defer cancel()
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	for _, line := range lines {
		io.WriteString(z, line+"\n") // to memory, which takes it
	}
	if err := z.Close(); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, i.URL, &body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	req.Header.Set("Content-Encoding", "gzip")
	if token := i.Token(); token != "" {
		req.Header.Set("Authorization", "Token "+token)
	}
	resp, err := i.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %.200s", resp.Status, said)
	}
	return nil
}
