package api

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"muster/shared/fault"
)

// checkQuery refuses what the route does not take: who misspells a filter must
// not take all that there is for what it picks. Only the published API is held
// to it: firmware adds words of its own, and so may agents newer than the head.
func (rt *Route) checkQuery(u *url.URL) error {
	if u.RawQuery == "" || !strings.HasPrefix(rt.Path, Root+"/") {
		return nil
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil { // what cannot be read would be passed over
		return fault.Invalidf("The query cannot be read: %v.", err)
	}
	var unhandled []string
	for _, name := range slices.Sorted(maps.Keys(q)) {
		i := slices.IndexFunc(rt.Query, func(p Param) bool { return p.Name == name })
		switch {
		case i < 0:
			unhandled = append(unhandled, fmt.Sprintf("%.80s", name))
		case len(q[name]) > 1 && rt.Query[i].Type != ManyTexts:
			return fault.Invalidf("%s: given %d times in the query, and only one value is taken.", name, len(q[name]))
		}
	}
	if len(unhandled) == 0 {
		return nil
	}
	return fault.Invalidf("Unhandled parameter(s): %s; %s", strings.Join(unhandled[:min(len(unhandled), 10)], ", "), rt.takes())
}

// takes says which parameters the route has.
func (rt *Route) takes() string {
	if len(rt.Query) == 0 {
		return "this endpoint takes none in the query."
	}
	names := make([]string, len(rt.Query))
	for i, p := range rt.Query {
		names[i] = p.Name
	}
	return "the query takes " + strings.Join(names, ", ") + "."
}
