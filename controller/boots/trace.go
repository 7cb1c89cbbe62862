package boots

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// Bounds: boots that wait to be sent, how many are sent together, how long a
// request may take, and how often one is tried.
const (
	maxQueue = 4096
	maxBatch = 256
	gather   = time.Second
	sendTime = 10 * time.Second
	tries    = 4
)

// Tracer sends boots as traces to a collector of OpenTelemetry: one trace for
// each boot, a span for each step, by OTLP over HTTP in JSON.
type Tracer struct {
	URL     string // such as http://collector:4318/v1/traces
	Head    string // host name
	Version string
	Name    func(uid string) string // of a node
	Log     *slog.Logger
	Client  *http.Client
	queue   chan traced
}

type traced struct {
	uid  string
	boot Boot
}

// NewTracer makes one; Run makes it send.
func NewTracer(t Tracer) *Tracer {
	t.queue = make(chan traced, maxQueue)
	return &t
}

// Note takes a boot that has ended. It never waits: when a collector does not
// keep up, boots are left out.
func (t *Tracer) Note(uid string, b Boot) {
	select {
	case t.queue <- traced{uid, b}:
	default:
	}
}

// Run sends what was noted until ctx ends.
func (t *Tracer) Run(ctx context.Context) error {
	for {
		var batch []traced
		select {
		case <-ctx.Done():
			return nil
		case one := <-t.queue:
			batch = append(batch, one)
		}
		more := time.After(gather)
		for full := false; !full && len(batch) < maxBatch; {
			select {
			case one := <-t.queue:
				batch = append(batch, one)
			case <-more:
				full = true
			case <-ctx.Done():
				full = true
			}
		}
		if err := t.send(ctx, batch); err != nil && ctx.Err() == nil {
			t.Log.Warn("traces of boots were not taken", "url", t.URL, "boots", len(batch), "error", err)
		}
	}
}

// send tries until the collector takes a batch, or says that it never will.
func (t *Tracer) send(ctx context.Context, batch []traced) error {
	body, err := json.Marshal(t.encode(batch))
	if err != nil {
		return err
	}
	for try, pause := 1, time.Second; ; try, pause = try+1, 3*pause {
		again, err := t.post(ctx, body)
		if err == nil || !again || try == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func (t *Tracer) post(ctx context.Context, body []byte) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := t.Client.Do(req)
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	if resp.StatusCode/100 == 2 {
		return false, nil
	}
	again = resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 502 && resp.StatusCode <= 504
	return again, fmt.Errorf("%s: %.200s", resp.Status, said)
}

// What follows is the JSON form of OTLP's ExportTraceServiceRequest
// (opentelemetry-proto 1.x): ids are hexadecimal, times strings of nanoseconds.
type (
	export struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource   resource     `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	resource struct {
		Attributes []attribute `json:"attributes"`
	}
	scopeSpans struct {
		Scope scope  `json:"scope"`
		Spans []span `json:"spans"`
	}
	scope struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
	}
	attribute struct {
		Key   string `json:"key"`
		Value value  `json:"value"`
	}
	value struct {
		String string `json:"stringValue"`
	}
	span struct {
		TraceID    string      `json:"traceId"`
		SpanID     string      `json:"spanId"`
		Parent     string      `json:"parentSpanId,omitempty"`
		Name       string      `json:"name"`
		Kind       int         `json:"kind"` // 1: internal
		Start      string      `json:"startTimeUnixNano"`
		End        string      `json:"endTimeUnixNano"`
		Attributes []attribute `json:"attributes,omitempty"`
		Status     *status     `json:"status,omitempty"`
	}
	status struct {
		Code    int    `json:"code"` // 2: error
		Message string `json:"message,omitempty"`
	}
)

func (t *Tracer) encode(batch []traced) export {
	var spans []span
	for _, one := range batch {
		spans = append(spans, t.spans(one)...)
	}
	return export{[]resourceSpans{{
		Resource:   resource{[]attribute{text("service.name", "muster"), text("host.name", t.Head)}},
		ScopeSpans: []scopeSpans{{scope{"muster/boots", t.Version}, spans}},
	}}}
}

// spans are those of one boot: the whole, and in it from each step to the next.
// The same boot always has the same ids, so sending it twice does no harm.
func (t *Tracer) spans(one traced) []span {
	steps := one.boot.Steps
	if len(steps) == 0 {
		return nil
	}
	id := func(what string, size int) string {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %s", one.uid, one.boot.Number, steps[0].Time.UnixNano(), what))
		return hex.EncodeToString(sum[:size])
	}
	trace, root := id("trace", 16), id("root", 8)
	out := []span{{
		TraceID: trace, SpanID: root, Name: "boot " + t.Name(one.uid), Kind: 1, Start: nanos(steps[0].Time), End: nanos(steps[len(steps)-1].Time),
		Attributes: []attribute{text("muster.node", t.Name(one.uid)), text("muster.uid", one.uid), text("muster.boot", strconv.Itoa(one.boot.Number))},
	}}
	for i, s := range steps[1:] {
		is := span{TraceID: trace, SpanID: id(strconv.Itoa(i), 8), Parent: root, Name: s.Step, Kind: 1, Start: nanos(steps[i].Time), End: nanos(s.Time)}
		if s.Detail != "" {
			is.Attributes = append(is.Attributes, text("muster.detail", s.Detail))
		}
		if s.Error != "" {
			is.Status = &status{2, s.Error}
		}
		out = append(out, is)
	}
	return out
}

func text(key, v string) attribute { return attribute{key, value{v}} }

func nanos(at time.Time) string { return strconv.FormatInt(at.UnixNano(), 10) }

// Took gives how long each step of a boot took, in seconds, by step.
func (b Boot) Took() (steps map[string]float64, total float64) {
	r := of("", b, time.Time{})
	steps = map[string]float64{}
	for _, t := range r.steps {
		steps[t.step] += t.seconds
	}
	return steps, r.total
}
