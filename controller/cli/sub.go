package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"muster/shared/hostlist"
	"muster/shared/kind"
)

// subVerb is what can be done to a field that is reachable for itself.
type subVerb struct {
	name, short string
	method      string
	body        func(words []string) (any, error)
}

func mapVerbs() []subVerb {
	return []subVerb{
		{"get", "show it, what is inherited included", "GET", nil},
		{"set", "set these keys: key=value, key:=JSON", "PATCH", mapBody},
		{"rm", "remove these keys", "DELETE", listBody},
		{"replace", "replace all that there is: key=value, key:=JSON", "PUT", mapBody},
	}
}

func listVerbs() []subVerb {
	return []subVerb{
		{"get", "show it, in order", "GET", nil},
		{"add", "append these", "POST", listBody},
		{"rm", "remove these", "DELETE", listBody},
		{"set", "replace all that there is", "PUT", listBody},
	}
}

func mapBody(words []string) (any, error) {
	raw, err := encodeMap(words)
	return raw, err
}

func listBody(words []string) (any, error) { return words, nil }

// sub gives the command of a field: muster node groups n0 add login.
func (k *kindVerbs) sub(f *kind.Field) *cobra.Command {
	verbs := mapVerbs()
	if f.Sub == kind.SubList {
		verbs = listVerbs()
	}
	var s selection
	long := "The " + f.Path + " of " + k.spec.Plural + ": " + f.Summary + ".\n\nVerbs:\n"
	var names []string
	for _, v := range verbs {
		long += fmt.Sprintf("  %-8s  %s\n", v.name, v.short)
		names = append(names, v.name)
	}
	target := "NAME"
	if k.isNode() {
		target = "{SET | -n SET | -a}"
	}
	c := &cobra.Command{
		Use: flagName(f.Path) + " " + target + " [" + strings.Join(names, "|") + " …]", Long: long,
		Short: "Read or change " + f.Path,
		RunE: func(cmd *cobra.Command, words []string) error {
			if _, err := k.connect(); err != nil {
				return err
			}
			return k.runSub(cmd.Context(), f, verbs, &s, words)
		},
	}
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if s.given() {
			args = append([]string{""}, args...)
		}
		switch {
		case len(args) == 0:
			return k.completeNames(k.spec)(cmd, args, part)
		case len(args) == 1:
			return names, cobra.ShellCompDirectiveNoFileComp
		case k.muster.spec(f.Ref) != nil:
			return k.completeNames(k.muster.spec(f.Ref))(cmd, args, part)
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if k.isNode() {
		s.flags(c, k.muster)
	}
	return c
}

func (k *kindVerbs) runSub(ctx context.Context, f *kind.Field, verbs []subVerb, s *selection, words []string) error {
	var target []string
	if !s.given() {
		if len(words) == 0 {
			return fmt.Errorf("which %s?", k.spec.Name)
		}
		target, words = words[:1], words[1:]
	}
	if len(words) == 0 {
		words = []string{"get"}
	}
	i := slices.IndexFunc(verbs, func(v subVerb) bool { return v.name == words[0] })
	if i < 0 {
		return fmt.Errorf("%s does not take %q; see muster %s %s --help", f.Path, words[0], k.spec.Name, flagName(f.Path))
	}
	verb, words := verbs[i], words[1:]
	names, err := k.targets(ctx, k.spec, s, target)
	if err != nil {
		return err
	}
	if verb.body == nil {
		return k.showSub(ctx, f, names, s.single(target))
	}
	if len(words) == 0 && verb.method != "PUT" {
		return fmt.Errorf("%s what?", verb.name)
	}
	body, err := verb.body(words)
	if err != nil {
		return err
	}
	return k.report(ctx, names, each(ctx, atOnce, names, func(_ int, name string) error {
		return k.client.Sub(ctx, verb.method, k.spec.Name, name, f.Path, body, nil)
	}))
}

// showSub shows a field of one object as itself, of several by name.
func (k *kindVerbs) showSub(ctx context.Context, f *kind.Field, names []string, single bool) error {
	got := make([]json.RawMessage, len(names))
	errs := each(ctx, atOnce, names, func(i int, name string) error {
		return k.client.Sub(ctx, "GET", k.spec.Name, name, f.Path, nil, &got[i])
	})
	if k.output == formJSON || k.output == formYAML {
		if err := k.report(ctx, names, errs); err != nil {
			return err
		}
		if single {
			return k.raw(got[0])
		}
		raw, err := json.Marshal(byKey(names, got))
		if err != nil {
			return err
		}
		return k.raw(raw)
	}
	rows, err := k.subRows(ctx, f, names, got, errs, single)
	if err != nil {
		return err
	}
	if err := k.table(rows); err != nil {
		return err
	}
	return k.report(ctx, names, errs)
}

// subRows gives one row per entry of the field, with the object's name in
// front unless it is about a single one; of -o name the keys alone.
func (k *kindVerbs) subRows(ctx context.Context, f *kind.Field, names []string, got []json.RawMessage, errs []error, single bool) ([][]string, error) {
	docs := make([]document, len(got))
	for i, raw := range got {
		if errs[i] != nil {
			continue
		}
		var err error
		if docs[i], err = parseDocument(json.RawMessage(`{"` + f.Path + `":` + string(raw) + `}`)); err != nil {
			return nil, fmt.Errorf("the head sent %s in another form than this program knows: %w", f.Path, err)
		}
	}
	refs := k.refNames(ctx, k.spec, docs)
	var rows [][]string
	for i, d := range docs {
		for _, row := range entries(k.spec, d.at(f.Path), refs) {
			if k.output == formName {
				row = row[:1]
			}
			if !single {
				row = append([]string{names[i]}, row...)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// entries gives the keys and values of a map, or the items of a list.
func entries(spec *kind.Spec, v any, refs map[string]string) [][]string {
	var rows [][]string
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.SortedFunc(maps.Keys(v), hostlist.Compare) {
			rows = append(rows, []string{key, cellText(spec, "", v[key], nil)})
		}
	case []any:
		for _, e := range v {
			rows = append(rows, []string{cellText(spec, "", []any{e}, refs)})
		}
	}
	return rows
}

func byKey(names []string, values []json.RawMessage) map[string]json.RawMessage {
	out := make(map[string]json.RawMessage, len(names))
	for i, n := range names {
		out[n] = values[i]
	}
	return out
}
