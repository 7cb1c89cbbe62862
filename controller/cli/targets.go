package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/hostlist"
	"muster/shared/kind"
	"muster/shared/object"
)

// atOnce is how many objects are read or changed at the same time.
const atOnce = 32

// selection is which nodes a command is for.
type selection struct {
	sets     []string
	selector string
	all      bool
}

func (s *selection) flags(c *cobra.Command, m *muster) {
	c.Flags().StringArrayVarP(&s.sets, "nodes", "n", nil, "set of nodes, such as n[0-3,7]")
	c.Flags().StringVarP(&s.selector, "selector", "s", "", "nodes by what they are, such as 'up and h[ram_total] > 100GB'")
	c.Flags().BoolVarP(&s.all, "all", "a", false, "all nodes")
	must(c.RegisterFlagCompletionFunc("nodes", m.completeNames(m.spec(object.KindNode))))
}

func (s *selection) given() bool { return s.all || s.selector != "" || len(s.sets) > 0 }

// single says whether the words are one plain name: what comes of it is then
// shown as one object, not as a list.
func (s *selection) single(words []string) bool {
	return !s.given() && len(words) == 1 && isName(words[0])
}

func isName(word string) bool {
	names, err := hostlist.Parse(word)
	return err == nil && len(names) == 1 && names[0] == word
}

// nodes gives the identifiers that the flags and the words stand for, each
// once.
func (m *muster) nodes(ctx context.Context, s *selection, words []string) ([]string, error) {
	words = slices.Concat(s.sets, words)
	if s.all {
		if len(words) > 0 {
			return nil, errors.New("--all is all nodes: leave the names out")
		}
		return m.allNodes(ctx)
	}
	if s.selector != "" {
		if len(words) > 0 {
			return nil, errors.New("--selector picks the nodes: leave the names out, or write them into it as name in n[0-3]")
		}
		return m.selected(ctx, s.selector)
	}
	var out []string
	seen := map[string]bool{}
	for _, w := range words {
		names, err := hostlist.Parse(w)
		if err != nil {
			return nil, fmt.Errorf("%q is no set of nodes: %w", w, err)
		}
		for _, n := range names {
			if !seen[n] {
				seen[n] = true
				out = append(out, n)
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("which nodes? Name them, give -n SET, -s SELECTOR, or -a for all")
	}
	return out, nil
}

// selected gives the names of the nodes that a selector picks.
func (m *muster) selected(ctx context.Context, selector string) ([]string, error) {
	c, err := m.connect()
	if err != nil {
		return nil, err
	}
	var nodes []struct{ Name string }
	if err := c.Call(ctx, "GET", client.Path("nodes", "select")+"?selector="+url.QueryEscape(selector), nil, &nodes); err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("no node matches %s", selector)
	}
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	slices.SortFunc(names, hostlist.Compare)
	return names, nil
}

func (m *muster) allNodes(ctx context.Context) ([]string, error) {
	c, err := m.connect()
	if err != nil {
		return nil, err
	}
	docs, err := listed(ctx, c, m.spec(object.KindNode))
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 {
		return nil, errors.New("there are no nodes yet")
	}
	names := make([]string, len(docs))
	for i, d := range docs {
		names[i] = d.name(m.spec(object.KindNode))
	}
	return names, nil
}

// targets gives the objects that a command is for: of nodes a set, of others
// those named.
func (m *muster) targets(ctx context.Context, spec *kind.Spec, s *selection, words []string) ([]string, error) {
	if spec.Name == object.KindNode {
		return m.nodes(ctx, s, words)
	}
	if len(words) == 0 {
		return nil, fmt.Errorf("which %s? Give a name or UID", spec.Name)
	}
	return words, nil
}

// listed gives all objects of a class, sorted.
func listed(ctx context.Context, c *client.Client, spec *kind.Spec) ([]document, error) {
	all, err := client.List[document](ctx, c, spec.Plural)
	if err != nil {
		return nil, err
	}
	docs := make([]document, 0, len(all))
	for _, d := range all {
		docs = append(docs, d)
	}
	byName(spec, docs)
	return docs, nil
}

// each runs fn for every name, at most limit at once, and gives the errors in
// the order of the names. Once ctx ends no more are begun.
func each(ctx context.Context, limit int, names []string, fn func(i int, name string) error) []error {
	errs := make([]error, len(names))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(limit, len(names)) {
		wg.Go(func() {
			for i := range next {
				errs[i] = fn(i, names[i])
			}
		})
	}
	for i := range names {
		if err := ctx.Err(); err != nil {
			errs[i] = err
			continue
		}
		next <- i
	}
	close(next)
	wg.Wait()
	return errs
}

// report says which of the names failed, one line for each cause, and gives
// the error that ends the program; nil when none did.
func (m *muster) report(ctx context.Context, names []string, errs []error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := unanimous(errs); err != nil {
		return err
	}
	lines := causes(names, errs)
	for _, line := range lines {
		m.complain(line)
	}
	if len(lines) > 0 {
		return status(1)
	}
	return nil
}

// causes gives a line for each cause of failure, with all the names that it
// struck. The same cause may name each in its text.
func causes(names []string, errs []error) []string {
	const here = "\x00"
	var order []string
	struck := map[string][]string{}
	for i, err := range errs {
		if err == nil {
			continue
		}
		word := regexp.MustCompile(`(^|[^\w.-])` + regexp.QuoteMeta(names[i]) + `($|\W)`)
		cause := word.ReplaceAllString(err.Error(), "${1}"+here+"${2}")
		if struck[cause] == nil {
			order = append(order, cause)
		}
		struck[cause] = append(struck[cause], names[i])
	}
	for i, cause := range order {
		set := hostlist.Fold(struck[cause])
		order[i] = set + ": " + strings.ReplaceAll(cause, here, set)
	}
	return order
}

// unanimous gives the one error that all have in common, as when the head
// cannot be reached: no need to say it for every node.
func unanimous(errs []error) error {
	if len(errs) == 0 || errs[0] == nil {
		return nil
	}
	for _, err := range errs {
		if err == nil || err.Error() != errs[0].Error() {
			return nil
		}
	}
	return errs[0]
}
