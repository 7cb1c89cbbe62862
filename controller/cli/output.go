package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// The forms of output.
const (
	formTable = "table"
	formJSON  = "json"
	formYAML  = "yaml"
	formName  = "name"
)

var outputs = []string{formTable, formJSON, formYAML, formName}

func (m *muster) checkOutput() error {
	if !slices.Contains(outputs, m.output) {
		return fmt.Errorf("--output %q is none of table, json, yaml and name", m.output)
	}
	return nil
}

// value shows v: as it is, as its name, or as the rows of a table, of which
// the first is the heading.
func (m *muster) value(v any, name string, rows func() [][]string) error {
	switch m.output {
	case formJSON, formYAML:
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return m.raw(raw)
	case formName:
		_, err := fmt.Fprintln(m.Stdout, printable(name))
		return err
	}
	return m.table(rows())
}

// raw writes JSON as JSON or YAML.
func (m *muster) raw(raw json.RawMessage) error {
	var out []byte
	if m.output == formYAML {
		var err error
		if out, err = toYAML(raw); err != nil {
			return err
		}
	} else {
		var buf bytes.Buffer
		if err := json.Indent(&buf, raw, "", "  "); err != nil {
			return err
		}
		buf.WriteByte('\n')
		out = buf.Bytes()
	}
	_, err := m.Stdout.Write(out)
	return err
}

// list makes one JSON list of values.
func list(raws []json.RawMessage) json.RawMessage {
	out := []byte{'['}
	for i, r := range raws {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, r...)
	}
	return append(out, ']')
}

// toYAML writes a JSON value as YAML, keys in the same order.
func toYAML(raw json.RawMessage) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	node, err := yamlNode(d)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	e := yaml.NewEncoder(&buf)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(node), e.Close()); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// olderMeaning matches what is text in YAML 1.2, but true or false, a number in
// base 60 (such as a MAC address) or an operator to the many readers of YAML 1.1.
var olderMeaning = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|=|<<|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)$`)

// yamlNode reads the next value.
func yamlNode(d *json.Decoder) (*yaml.Node, error) {
	tok, err := d.Token()
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	scalar := func(tag, text string) (*yaml.Node, error) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}, nil
	}
	switch t := tok.(type) {
	case string:
		node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: t}
		// Blocks of lines lose those that are empty at their beginning.
		if olderMeaning.MatchString(t) || strings.ContainsAny(t, "\n\r\u0085\u2028\u2029") {
			node.Style = yaml.DoubleQuotedStyle
		}
		return node, nil
	case bool:
		return scalar("!!bool", strconv.FormatBool(t))
	case json.Number:
		return scalar("", t.String()) // any number of JSON is one in YAML
	case json.Delim:
		node := &yaml.Node{Kind: yaml.MappingNode}
		if t == '[' {
			node.Kind = yaml.SequenceNode
		}
		for d.More() { // in a mapping, keys are tokens like all others
			child, err := yamlNode(d)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, child)
		}
		if len(node.Content) == 0 {
			node.Style = yaml.FlowStyle
		}
		_, err := d.Token()
		return node, err
	}
	return scalar("!!null", "null")
}
