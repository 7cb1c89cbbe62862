package api

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"muster/shared/fault"
	"muster/shared/kind"
)

func fieldsParam() Param {
	return Param{Name: "fields", Doc: "only these fields, with commas: name,ip"}
}

func listParams() []Param {
	return []Param{fieldsParam(),
		{Name: "limit", Type: "integer", Doc: "at most so many objects; the header Link then says where the next ones are"},
		{Name: "after", Doc: "only objects whose UID sorts behind this one"},
	}
}

func (c *crud) get(w http.ResponseWriter, r *http.Request) error {
	obj, err := c.objects.Find(c.spec.Name, r.PathValue("id"))
	if err != nil {
		return err
	}
	text, tag, err := c.objects.Encoded(c.spec.Name, obj, By(r))
	if err != nil {
		return err
	}
	if r.URL.RawQuery != "" {
		pick, err := c.fields(r)
		if err == nil {
			text, err = pick.of(text)
		}
		if err != nil {
			return err
		}
	}
	if same(w, r, `"`+tag+`"`) {
		return nil
	}
	const before, after = `{"success":true,"data":`, "}\n"
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(before)+len(text)+len(after)))
	body := make([]byte, 0, len(before)+len(text)+len(after))
	_, err = w.Write(append(append(append(body, before...), text...), after...))
	return err
}

// list streams: ten thousand objects must not be in memory twice.
func (c *crud) list(w http.ResponseWriter, r *http.Request) error {
	pick, err := c.fields(r)
	if err != nil {
		return err
	}
	all, next, err := page(c.objects.All(c.spec.Name), r.URL)
	if err != nil {
		return err
	}
	tag, err := c.tagOf(r, all)
	if err != nil {
		return err
	}
	if next != "" {
		w.Header().Set("Link", "<"+next+`>; rel="next"`) // RFC 8288
	}
	if same(w, r, tag) {
		return nil
	}
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(w, 32<<10)
	out.WriteString(`{"success":true,"data":{`)
	by := By(r)
	for i, obj := range all {
		text, _, err := c.objects.Encoded(c.spec.Name, obj, by)
		if err == nil {
			text, err = pick.of(text)
		}
		if err == nil {
			err = r.Context().Err()
		}
		if err != nil {
			return err
		}
		if i > 0 {
			out.WriteString(",\n")
		}
		out.WriteString(`"` + obj.Base().UID + `":`)
		out.Write(text)
	}
	out.WriteString("}}\n")
	return out.Flush()
}

// tagOf makes the tag of a list of those of its objects.
func (c *crud) tagOf(r *http.Request, all []kind.Object) (string, error) {
	by, sum := By(r), sha256.New()
	for _, obj := range all {
		_, tag, err := c.objects.Encoded(c.spec.Name, obj, by)
		if err == nil {
			err = r.Context().Err()
		}
		if err != nil {
			return "", err
		}
		io.WriteString(sum, tag)
	}
	return contentTag(sum.Sum(nil)), nil
}

// page picks what ?after= and ?limit= ask for of objects in the order of their
// UIDs, and gives the path of the page behind it.
func page(all []kind.Object, u *url.URL) (part []kind.Object, next string, err error) {
	q := u.Query()
	if after := q.Get("after"); after != "" {
		i, found := slices.BinarySearchFunc(all, after, func(o kind.Object, uid string) int { return strings.Compare(o.Base().UID, uid) })
		if found {
			i++
		}
		all = all[i:]
	}
	if !q.Has("limit") {
		return all, "", nil
	}
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil || limit < 1 {
		return nil, "", fault.Invalidf("limit: %q is not a number from 1 on.", q.Get("limit"))
	}
	if len(all) <= limit {
		return all, "", nil
	}
	q.Set("after", all[limit-1].Base().UID)
	return all[:limit], u.Path + "?" + q.Encode(), nil
}

// picked are the keys that ?fields= asks for; nil for all.
type picked []string

func (c *crud) fields(r *http.Request) (picked, error) {
	q := r.URL.Query()
	if !q.Has("fields") {
		return nil, nil
	}
	pick := picked{}
	for _, name := range strings.Split(q.Get("fields"), ",") {
		name = strings.TrimSpace(name)
		if _, ok := c.spec.Field(name); !ok || strings.Contains(name, ".") {
			return nil, fault.Invalidf("fields: %s has no field %q; GET %s lists them.", c.spec.A(), name, c.metaPath())
		}
		pick = append(pick, name)
	}
	return pick, nil
}

func (c *crud) metaPath() string {
	if c.spec.Singleton {
		return Root + "/" + c.spec.Name + "/meta"
	}
	return Root + "/" + c.spec.Plural + "/meta"
}

// of reduces an object's JSON to the keys; what it does not have stays away.
func (p picked) of(text []byte) ([]byte, error) {
	if p == nil {
		return text, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteByte('{')
	for _, key := range p {
		value, ok := all[key]
		if !ok {
			continue
		}
		delete(all, key) // asked for twice is given once
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "%q:%s", key, value)
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}
