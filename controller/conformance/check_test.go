package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
)

// check is one row under way: it asks and notes what does not hold.
type check struct {
	*head
	problems []string
	skipped  string
}

// over is what ends a check early.
type over struct{}

// serial numbers what must be unique.
var serial atomic.Int64

func (h *head) check() *check { return &check{head: h} }

// asker is whom a check asks as.
type asker struct {
	*check
	as     string // token; "" for none
	from   string // address that is called from; "" for any
	secure bool   // over TLS
}

func (c *check) anybody() *asker          { return &asker{check: c} }
func (c *check) with(token string) *asker { return &asker{check: c, as: token} }
func (c *check) at(addr string) *asker    { return &asker{check: c, from: addr} }
func (c *check) tls() *asker              { return &asker{check: c, as: c.token, secure: true} }
func (c *check) me() *asker               { return &asker{check: c, as: c.token} }

func (c *check) GET(path string, body ...string) *answer    { return c.me().GET(path, body...) }
func (c *check) POST(path, body string) *answer             { return c.me().POST(path, body) }
func (c *check) PATCH(path, body string) *answer            { return c.me().PATCH(path, body) }
func (c *check) PUT(path, body string) *answer              { return c.me().PUT(path, body) }
func (c *check) DELETE(path string, body ...string) *answer { return c.me().DELETE(path, body...) }

func (a *asker) GET(path string, body ...string) *answer {
	return a.do("GET", path, strings.Join(body, ""))
}
func (a *asker) POST(path, body string) *answer  { return a.do("POST", path, body) }
func (a *asker) PATCH(path, body string) *answer { return a.do("PATCH", path, body) }
func (a *asker) PUT(path, body string) *answer   { return a.do("PUT", path, body) }
func (a *asker) DELETE(path string, body ...string) *answer {
	return a.do("DELETE", path, strings.Join(body, ""))
}

// fail notes what does not hold and goes on.
func (c *check) fail(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// must ends the check where going on makes no sense.
func (c *check) must(ok bool, format string, args ...any) {
	if !ok {
		c.fail(format, args...)
		panic(over{})
	}
}

// elsewhere goes on with the check on another head.
func (c *check) elsewhere(fn func(*check)) {
	c.problems = append(c.problems, startHead(c.TB, false).try(fn).problems...)
}

// skip ends a check that cannot be made here, with the reason.
func (c *check) skip(why string) {
	c.skipped = why
	panic(over{})
}

// answer is what came back.
type answer struct {
	*check
	call    string // for messages
	status  int
	header  http.Header
	trailer http.Header
	raw     []byte
	success *bool
	data    json.RawMessage
	reason  string
}

// do sends a request as curl does: whatever the body is, curl calls it a form.
func (a *asker) do(method, path, body string) *answer {
	c := a.check
	base := c.HTTP
	if a.secure {
		base = c.HTTPS
	}
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, base+root+path, r)
	c.must(err == nil, "%s %s: %v", method, path, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if a.as != "" {
		req.Header.Set("Authorization", "Bearer "+a.as)
	}
	got := &answer{check: c, call: strings.TrimSpace(fmt.Sprintf("%s %s %.150s", method, path, body))}
	resp, err := c.client(a.from).Do(req)
	c.must(err == nil, "%s: %v", got.call, err)
	defer resp.Body.Close()
	got.raw, err = io.ReadAll(resp.Body)
	c.must(err == nil, "%s: the answer broke off: %v", got.call, err)
	got.status, got.header, got.trailer = resp.StatusCode, resp.Header, resp.Trailer
	if err := c.contract().Check(req, []byte(body), got.status, got.header, got.raw); err != nil {
		c.fail("%.400v", err)
	}
	if resp.Header.Get("Content-Type") == "application/json" {
		var env struct {
			Success *bool
			Data    json.RawMessage
			Reason  string
		}
		if err := json.Unmarshal(got.raw, &env); err != nil {
			c.fail("%s: %v in %.200s", got.call, err, got.raw)
		}
		got.success, got.data, got.reason = env.Success, env.Data, env.Reason
	}
	return got
}

// ok says that the answer is the success envelope.
func (a *answer) ok() *answer {
	a.must(a.status == http.StatusOK && a.success != nil && *a.success, "%s: %d %.300s", a.call, a.status, a.raw)
	return a
}

// done says that the answer is {"success": true} and nothing more.
func (a *answer) done() *answer {
	a.ok()
	if strings.TrimSpace(string(a.raw)) != `{"success": true}` {
		a.fail("%s: %.200s is not just a success", a.call, a.raw)
	}
	return a
}

var uidForm = regexp.MustCompile(`^[a-z0-9]{32}$`)

// uid says that the answer's data is a UID, and gives it.
func (a *answer) uid() (uid string) {
	json.Unmarshal(a.ok().data, &uid)
	a.must(uidForm.MatchString(uid), "%s: %s is no UID", a.call, a.data)
	return uid
}

// object says that the answer's data is an object, and gives it.
func (a *answer) object() (o map[string]any) {
	a.must(json.Unmarshal(a.ok().data, &o) == nil && o != nil, "%s: %.200s is no object", a.call, a.data)
	return o
}

// list says that the answer's data is a list, and gives it.
func (a *answer) list() (l []any) {
	a.must(json.Unmarshal(a.ok().data, &l) == nil && l != nil, "%s: %.200s is no list", a.call, a.data)
	return l
}

// is says that the answer's data is this JSON.
func (a *answer) is(want string) { a.same(a.ok().decoded(), want) }

func (a *answer) decoded() (v any) {
	if err := json.Unmarshal(a.data, &v); err != nil {
		a.fail("%s: no data in %.200s", a.call, a.raw)
	}
	return v
}

// has says that the answer's data is an object with these values, given as
// keys and JSON in turn.
func (a *answer) has(pairs ...string) map[string]any {
	o := a.object()
	for i := 0; i < len(pairs); i += 2 {
		if !equal(o[pairs[i]], pairs[i+1]) {
			a.fail("%s: %s is %s, want %s", a.call, pairs[i], show(o[pairs[i]]), pairs[i+1])
		}
	}
	return o
}

// lacks says that the object has none of these keys.
func (a *answer) lacks(keys ...string) {
	o := a.object()
	for _, k := range keys {
		if v, ok := o[k]; ok {
			a.fail("%s: has %s: %s", a.call, k, show(v))
		}
	}
}

// bytes says that the answer is raw, without an envelope, and gives it.
func (a *answer) bytes() []byte {
	a.must(a.status == http.StatusOK, "%s: %d %.300s", a.call, a.status, a.raw)
	if a.success != nil {
		a.fail("%s: wrapped in an envelope: %.200s", a.call, a.raw)
	}
	return a.raw
}

// text says that the answer is raw and holds all of these.
func (a *answer) text(parts ...string) string {
	raw := a.bytes()
	for _, p := range parts {
		if !bytes.Contains(raw, []byte(p)) {
			a.fail("%s: no %q in %.300s", a.call, p, raw)
		}
	}
	return string(raw)
}

// refused says that the answer is a failure with this status (0 for any 4xx),
// a reason that has all parts, and nothing else.
func (a *answer) refused(status int, parts ...string) {
	bad := status != 0 && a.status != status || a.status < 400 || a.status > 499
	if bad || a.success == nil || *a.success || a.reason == "" || a.data != nil {
		a.fail("%s: %d %.300s, want a refusal (%d)", a.call, a.status, a.raw, status)
		return
	}
	for _, p := range parts {
		if !strings.Contains(a.reason, p) {
			a.fail("%s: the reason %q does not say %q", a.call, a.reason, p)
		}
	}
}

// reasoned says that the answer is a failure with exactly this reason.
func (a *answer) reasoned(status int, reason string) {
	a.refused(status)
	if a.reason != reason {
		a.fail("%s: the reason is %q, want %q", a.call, a.reason, reason)
	}
}

// same says that a value is this JSON.
func (c *check) same(got any, want string) {
	if !equal(got, want) {
		c.fail("got %s, want %s", show(got), want)
	}
}

func equal(got any, want string) bool {
	var w any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		panic(fmt.Sprintf("the table holds %q, which is no JSON: %v", want, err))
	}
	var g any
	json.Unmarshal([]byte(show(got)), &g)
	return reflect.DeepEqual(g, w)
}

func show(v any) string {
	raw, _ := json.Marshal(v)
	return string(raw)
}

// stamps are what every object carries of its last change.
var stamps = []string{"last_modified", "last_modified_on", "last_modified_by"}

// stamped says that an object carries them.
func (c *check) stamped(o map[string]any) {
	t, isNumber := o["last_modified"].(float64)
	on, _ := o["last_modified_on"].(string)
	by, _ := o["last_modified_by"].(string)
	if uid, _ := o["uid"].(string); !isNumber || t < 1e9 || on == "" || by == "" || !uidForm.MatchString(uid) {
		c.fail("the stamps or the uid are wrong in %s", show(o))
	}
}

// without gives an object less some keys.
func without(o map[string]any, keys ...string) map[string]any {
	out := maps.Clone(o)
	for _, k := range keys {
		delete(out, k)
	}
	return out
}

// later says that an object was changed since.
func (c *check) later(now, before map[string]any) {
	a, _ := now["last_modified"].(float64)
	if b, _ := before["last_modified"].(float64); a <= b {
		c.fail("last_modified did not grow: %s", show(now))
	}
}

func keysOf(o map[string]any) []string {
	return append([]string{}, slices.Sorted(maps.Keys(o))...) // never null
}
