package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"muster/shared/client"
	"muster/shared/hostlist"
	"muster/shared/kind"
)

// document is an object as the head sent it, and decoded to be looked into.
type document struct {
	raw    json.RawMessage
	fields map[string]any
}

func parseDocument(raw json.RawMessage) (document, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	doc := document{raw: raw}
	return doc, d.Decode(&doc.fields)
}

// at gives what a dotted path leads to, nil when there is nothing.
func (d document) at(path string) any {
	var v any = d.fields
	for word := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[word]
	}
	return v
}

// name is what people call the object.
func (d document) name(spec *kind.Spec) string {
	for _, path := range append(slices.Clone(spec.Names), "uid") {
		if s, ok := d.at(path).(string); ok && s != "" {
			return s
		}
	}
	return spec.Name
}

// byName sorts objects as people do.
func byName(spec *kind.Spec, docs []document) {
	slices.SortStableFunc(docs, func(a, b document) int { return hostlist.Compare(a.name(spec), b.name(spec)) })
}

// show writes objects: one by one in full, or as lines of a table. A single
// one is written as itself, several as a list.
func (m *muster) show(ctx context.Context, spec *kind.Spec, docs []document, full, single bool) error {
	switch m.output {
	case formJSON, formYAML:
		if single && len(docs) == 1 {
			return m.raw(docs[0].raw)
		}
		if m.output == formYAML && len(docs) > 0 {
			return m.yamlList(docs)
		}
		raws := make([]json.RawMessage, len(docs))
		for i, d := range docs {
			raws[i] = d.raw
		}
		return m.raw(list(raws))
	case formName:
		var out strings.Builder
		for _, d := range docs {
			out.WriteString(printable(d.name(spec)) + "\n")
		}
		_, err := fmt.Fprint(m.Stdout, out.String())
		return err
	}
	names := m.refNames(ctx, spec, docs)
	if !full {
		return m.table(tableOf(spec, docs, names))
	}
	for i, d := range docs {
		if i > 0 {
			fmt.Fprintln(m.Stdout)
		}
		if err := m.table(inFull(spec, d, names)); err != nil {
			return err
		}
	}
	return nil
}

// yamlList writes a list item by item: ten thousand nodes as one tree would take
// half a gigabyte.
func (m *muster) yamlList(docs []document) error {
	out := bufio.NewWriter(m.Stdout)
	for _, d := range docs {
		item, err := toYAML(list([]json.RawMessage{d.raw}))
		if err != nil {
			return err
		}
		out.Write(item) // Flush gives the error
	}
	return out.Flush()
}

// tableOf gives one row per object, of the columns that the kind declares.
func tableOf(spec *kind.Spec, docs []document, names map[string]string) [][]string {
	rows := [][]string{headings(spec.Columns)}
	for _, d := range docs {
		row := make([]string, len(spec.Columns))
		for i, path := range spec.Columns {
			row[i] = cellText(spec, path, d.at(path), names)
		}
		rows = append(rows, row)
	}
	return rows
}

// headings are the last words of paths, or more of them where that is needed
// to tell them apart.
func headings(paths []string) []string {
	last := func(p string) string { return p[strings.LastIndexByte(p, '.')+1:] }
	count := map[string]int{}
	for _, p := range paths {
		count[last(p)]++
	}
	out := make([]string, len(paths))
	for i, p := range paths {
		if count[last(p)] == 1 {
			p = last(p)
		}
		out[i] = strings.ToUpper(p)
	}
	return out
}

// inFull gives one row per value of an object, declared fields first.
func inFull(spec *kind.Spec, d document, names map[string]string) [][]string {
	var rows [][]string
	for _, f := range spec.Fields {
		if strings.Contains(f.Path, ".") {
			continue
		}
		if v := d.at(f.Path); v != nil {
			rows = append(rows, flatten(spec, f.Path, v, names)...)
		}
	}
	return rows
}

func flatten(spec *kind.Spec, path string, v any, names map[string]string) [][]string {
	m, ok := v.(map[string]any)
	if !ok {
		return [][]string{{path, cellText(spec, path, v, names)}}
	}
	var rows [][]string
	for _, k := range slices.SortedFunc(maps.Keys(m), hostlist.Compare) {
		rows = append(rows, flatten(spec, path+"."+k, m[k], names)...)
	}
	return rows
}

// cellText writes a value for people: times in the local zone, sizes in units,
// lists with commas, maps as key=value.
func cellText(spec *kind.Spec, path string, v any, names map[string]string) string {
	f, _ := spec.Field(path)
	switch x := v.(type) {
	case nil:
		return ""
	case json.Number:
		if f != nil && f.Format.Name == "time" {
			if s, err := x.Float64(); err == nil {
				return timeText(s)
			}
		}
		if n, err := x.Int64(); err == nil && f != nil && strings.HasSuffix(path, ".size") {
			return bytesText(n)
		}
		return x.String()
	case []any:
		words := make([]string, len(x))
		for i, e := range x {
			words[i] = cellText(spec, "", e, names)
			if name, ok := names[words[i]]; ok {
				words[i] = name
			}
		}
		return strings.Join(words, ",")
	case map[string]any:
		var words []string
		for _, k := range slices.SortedFunc(maps.Keys(x), hostlist.Compare) {
			words = append(words, k+"="+cellText(spec, "", x[k], names))
		}
		return strings.Join(words, " ")
	}
	return fmt.Sprint(v)
}

// timeText writes seconds since 1970.
func timeText(s float64) string {
	if s == 0 {
		return ""
	}
	return time.UnixMicro(int64(s * 1e6)).Format("2006-01-02 15:04:05")
}

// refNames gives the names of what lists of references hold: the API has UIDs
// there. Without the right to read them the UIDs have to do.
func (m *muster) refNames(ctx context.Context, spec *kind.Spec, docs []document) map[string]string {
	names := map[string]string{}
	for _, f := range spec.Fields {
		used := slices.ContainsFunc(docs, func(d document) bool { l, ok := d.at(f.Path).([]any); return ok && len(l) > 0 })
		ref := m.spec(f.Ref)
		if !used || ref == nil {
			continue
		}
		all, err := client.List[document](ctx, m.client, ref.Plural)
		if err != nil {
			continue
		}
		for uid, d := range all {
			names[uid] = d.name(ref)
		}
	}
	return names
}

// UnmarshalJSON keeps the object as it came beside what is in it.
func (d *document) UnmarshalJSON(raw []byte) (err error) {
	*d, err = parseDocument(bytes.Clone(raw))
	return err
}

func (m *muster) spec(name string) *kind.Spec {
	i := slices.IndexFunc(m.specs, func(s *kind.Spec) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return m.specs[i]
}
