package conformance

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"muster/controller/api"
)

// What the published API has, and how much of it must hold. The second numbers
// only ever grow.
const (
	published, holding                 = 206, 206
	publishedExamples, holdingExamples = 52, 52
)

// access says who may call an endpoint.
type access string

const (
	public   access = "public"    // anybody
	token    access = "token"     // an admin who is allowed to
	renewal  access = "refresh"   // only with a refresh token
	ownNode  access = "node's IP" // a node, known by its address
	fromHead access = "head's IP" // a head, known by its address
)

// row is one endpoint. In its path <…> stands for what identifies something.
type row struct {
	method, path string
	who          access
	holds        string // what must hold, for readers
	check        func(c *check)
}

// group is rows that share a head, in order.
type group struct {
	name     string
	programs bool // the head needs muster-agent and muster-pam
	setup    func(c *check)
	rows     []row
}

// example is one step of a worked example; its steps share a head, in order.
type example struct {
	id    string
	shows string
	check func(c *check)
}

type story struct {
	name     string
	programs bool
	setup    func(c *check)
	steps    []example
}

// result is what came of one row or example.
type result struct {
	name, who, holds string
	problems         []string
	missing          bool
	skipped          string // why it cannot be tried here
}

func (r *result) verdict() string {
	switch {
	case r.skipped != "":
		return "skipped"
	case r.missing:
		return "MISSING"
	case len(r.problems) > 0:
		return "FAILS"
	}
	return "holds"
}

func TestEndpoints(t *testing.T) {
	var all []*result
	t.Run("head", func(t *testing.T) {
		for _, g := range groups() {
			results := make([]*result, len(g.rows))
			for i, r := range g.rows {
				results[i] = &result{name: fmt.Sprintf("%-6s %s", r.method, r.path), who: string(r.who), holds: r.holds}
			}
			all = append(all, results...)
			t.Run(g.name, func(t *testing.T) {
				t.Parallel()
				h := startHead(t, g.programs)
				ready := h.try(g.setup)
				for i, r := range g.rows {
					results[i].missing = !h.exists(r)
					if results[i].problems = ready.problems; len(ready.problems) == 0 && !results[i].missing {
						guard, c := h.try(func(c *check) { c.guarded(r) }), h.try(r.check)
						results[i].problems, results[i].skipped = append(guard.problems, c.problems...), c.skipped
					}
				}
			})
		}
	})
	report(t, "endpoints", all, published, holding)
}

func TestExamples(t *testing.T) {
	var all []*result
	t.Run("head", func(t *testing.T) {
		for _, s := range stories() {
			results := make([]*result, len(s.steps))
			for i, e := range s.steps {
				results[i] = &result{name: e.id, holds: e.shows}
			}
			all = append(all, results...)
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				h := startHead(t, s.programs)
				ready := h.try(s.setup)
				for i, e := range s.steps {
					if results[i].problems = ready.problems; len(ready.problems) == 0 {
						c := h.try(e.check)
						results[i].problems, results[i].skipped = c.problems, c.skipped
					}
				}
			})
		}
	})
	report(t, "worked examples", all, publishedExamples, holdingExamples)
}

// try runs a check to its end.
func (h *head) try(fn func(*check)) *check {
	c := h.check()
	if fn == nil {
		return c
	}
	func() {
		defer func() {
			if p := recover(); p != nil && p != (over{}) {
				panic(p)
			}
		}()
		fn(c)
	}()
	return c
}

// sample is a path with something in the place of each <…>.
func (r row) sample() string { return anything.ReplaceAllString(r.path, "x") }

// exists says whether the head has an endpoint of that path and method.
func (h *head) exists(r row) bool {
	want := anything.ReplaceAllString(r.method+" "+root+r.path, "*")
	return slices.ContainsFunc(h.Routes(), func(rt api.Route) bool {
		return anything.ReplaceAllString(rt.Method+" "+rt.Path, "*") == want
	})
}

// anything is what stands for an identifier, here and among the head's routes.
var anything = regexp.MustCompile(`<[^>]*>|\{[^}]*\}`)

// guarded says that those and only those may call the endpoint who may.
func (c *check) guarded(r row) {
	ask := func(a *asker) *answer { return a.do(r.method, r.sample(), "") }
	switch r.who {
	case public:
		if a := ask(c.anybody()); a.status == 401 || a.status == 403 {
			c.fail("asks for a token: %d %s", a.status, a.reason)
		}
	case token:
		ask(c.anybody()).refused(401)
		ask(c.with("nonsense")).refused(401)
		ask(c.with(c.refresh)).refused(401)
		ask(c.with(c.powerless)).refused(403)
	case renewal:
		ask(c.anybody()).refused(401)
		ask(c.with("nonsense")).refused(401)
		ask(c.with(c.token)).refused(401)
	case ownNode:
		ask(c.at("127.0.0.9")).reasoned(404, "No node found for ID=127.0.0.9")
	case fromHead:
		ask(c.at("127.0.0.9")).refused(403)
	}
}

// printing keeps tables of tests that run at once apart.
var printing sync.Mutex

// report prints the table, and fails the test when less holds than must.
func report(t *testing.T, what string, all []*result, published, wanted int) {
	printing.Lock()
	defer printing.Unlock()
	holds := 0
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	for _, r := range all {
		switch r.verdict() {
		case "holds":
			holds++
		case "skipped":
			wanted--
			r.problems = []string{r.skipped}
		}
		if testing.Verbose() || r.verdict() != "holds" {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.verdict(), r.name, r.who, r.holds)
		}
	}
	w.Flush()
	for _, r := range all {
		if r.missing {
			continue
		}
		for _, p := range r.problems {
			fmt.Fprintf(&out, "%s: %s\n", strings.TrimSpace(r.name), p)
		}
	}
	fmt.Fprintf(&out, "%d of %d %s hold\n", holds, len(all), what)
	os.Stdout.WriteString(out.String())
	if len(all) != published {
		t.Errorf("the table has %d %s, the published API %d", len(all), what, published)
	}
	if holds < wanted {
		t.Errorf("%d %s hold, %d must", holds, what, wanted)
	}
}
