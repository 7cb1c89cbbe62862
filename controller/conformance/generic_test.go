package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// prepare makes what the class's bodies refer to.
func (k class) prepare(c *check) {
	for _, r := range k.needs {
		c.me().do(r.method, r.path, r.body) // what fails is missed where it is referred to
	}
}

// body gives one that makes an object that differs from all others.
func (k class) body(c *check, template string) map[string]any {
	n := serial.Add(1)
	hex := fmt.Sprintf("%02x", n%256)
	text := strings.NewReplacer("#x", hex, "#", fmt.Sprint(n%250)).Replace(template)
	var b map[string]any
	c.must(json.Unmarshal([]byte(text), &b) == nil, "the table holds %s, which is no JSON object", text)
	if k.noUIDOfItsOwn {
		b["uid"] = fmt.Sprintf("%032x", n)
	}
	return b
}

// made creates an object and gives its UID and its path.
func (k class) made(c *check, template string) (uid, path string) {
	uid = c.POST("/"+k.plural, show(k.body(c, template))).uid()
	return uid, "/" + k.single + "/" + uid
}

// generic is the seven rows that classes have in common, less those left out.
func (k class) generic(leave ...string) []row {
	one := "/" + k.single + "/<UID>"
	rows := []row{
		{"GET", "/" + k.plural, token, "all objects by UID, each as it is read alone", k.list},
		{"POST", "/" + k.plural, token, "takes every field, answers 200 with the UID; refuses what is unknown, missing or taken", k.create},
		{"GET", one, token, "one object by UID and every name, flat, with its stamps", k.get},
		{"PATCH", one, token, "changes what is sent and nothing else; all or nothing", k.patch},
		{"PUT", one, token, "replaces the object: what is not sent is unset", k.put},
		{"DELETE", one, token, "for good, by UID and by name", k.delete},
		{"GET", "/" + k.plural + "/meta", public, "path, summary, source and format of every field", k.meta},
	}
	return slices.DeleteFunc(rows, func(r row) bool { return slices.Contains(leave, r.method) })
}

func (k class) list(c *check) {
	first, path := k.made(c, k.min)
	second, _ := k.made(c, k.full)
	all := c.GET("/" + k.plural).object()
	c.same(all[first], show(c.GET(path).object()))
	if _, ok := all[second]; !ok {
		c.fail("the list lacks %s", second)
	}
	for uid, o := range all {
		if m, ok := o.(map[string]any); !ok || m["uid"] != uid {
			c.fail("the list has under %s %s", uid, show(o))
		}
	}
	c.DELETE(path).done()
	if _, ok := c.GET("/" + k.plural).object()[first]; ok {
		c.fail("a deleted object is listed")
	}
}

func (k class) create(c *check) {
	in := k.body(c, k.full)
	a := c.POST("/"+k.plural, show(in))
	uid := a.uid()
	o := c.GET("/" + k.single + "/" + uid).object()
	c.stamped(o)
	if by := o["last_modified_by"]; by != c.operator {
		c.fail("last_modified_by is %v, not %s", by, c.operator)
	}
	k.holds(c, o, in)
	for field := range in { // once more, and something that is no field
		if len(k.body(c, k.min)) > 0 && k.required(field) {
			lacking := k.body(c, k.min)
			delete(lacking, field)
			c.POST("/"+k.plural, show(lacking)).refused(0, field)
		}
	}
	unknown := k.body(c, k.min)
	unknown["colour"] = "red"
	c.POST("/"+k.plural, show(unknown)).reasoned(400, "Unhandled parameter(s): colour")
	c.POST("/"+k.plural, "").refused(400)
	c.POST("/"+k.plural, `[]`).refused(400)
	c.POST("/"+k.plural, `{"name":`).refused(400)
	if k.single == "node" {
		c.POST("/nodes", show(map[string]any{"mac": in["mac"]})).reasoned(409, fmt.Sprintf("Node with MAC=%s already exists.", in["mac"]))
	} else {
		c.POST("/"+k.plural, show(in)).refused(409)
	}
}

// required says whether a field has no default: it is in the smallest body.
func (k class) required(field string) bool {
	var b map[string]any
	json.Unmarshal([]byte(strings.ReplaceAll(k.min, "#x", "00")), &b)
	_, ok := b[field]
	return ok
}

// holds compares what was sent with what is read back.
func (k class) holds(c *check, got, sent map[string]any) {
	for field, v := range sent {
		if field == "attributes" && k.single == "node" { // read with what is inherited
			own, _ := v.(map[string]any)
			all, _ := got[field].(map[string]any)
			for key := range own {
				c.same(all[key], show(own[key]))
			}
			continue
		}
		if ref := k.refs[field]; ref != "" {
			c.same(k.uids(c, ref, got[field]), show(k.uids(c, ref, v)))
		} else if v == false && got[field] == nil || show(got[field]) == show(v) {
			continue // what is off need not be shown
		} else {
			c.fail("%s was sent as %s and is read as %s", field, show(v), show(got[field]))
		}
	}
}

// uids turns references, as names or UIDs, into UIDs.
func (k class) uids(c *check, single string, v any) any {
	if list, ok := v.([]any); ok {
		out := []any{}
		for _, x := range list {
			out = append(out, k.uids(c, single, x))
		}
		return out
	}
	id, ok := v.(string)
	if !ok {
		return v
	}
	return c.GET("/" + single + "/" + strings.ReplaceAll(id, " ", "%20")).object()["uid"]
}

func (k class) get(c *check) {
	_, path := k.made(c, k.full)
	o := c.GET(path).object()
	c.stamped(o)
	for _, field := range strings.Fields(k.shown) {
		if _, ok := o[field]; !ok && field != "kernel" && field != "initramfs" && field != "content" {
			c.fail("%s is not shown: %s", field, show(keysOf(o)))
		}
	}
	for _, field := range k.names {
		id, _ := o[field].(string)
		c.must(id != "", "it has no %s", field)
		c.same(c.GET("/"+k.single+"/"+id).object(), show(o))
	}
	word := k.single
	if word == "host" {
		word = "hostname"
	}
	for _, id := range []string{"nobody", strings.Repeat("0", 32)} {
		c.GET("/"+k.single+"/"+id).reasoned(404, "No "+word+" found for ID="+id)
	}
}

func (k class) patch(c *check) {
	_, path := k.made(c, k.full)
	before := c.GET(path).object()
	var change map[string]any
	json.Unmarshal([]byte(k.change), &change)
	if k.single == "namingpool" { // ip_base and ip_offset exclude each other
		c.PATCH(path, `{"ip_offset":null}`).done()
		before = c.GET(path).object()
	}
	c.PATCH(path, k.change).done()
	after := c.GET(path).object()
	k.holds(c, after, change)
	varies := append(slices.Collect(maps.Keys(change)), "last_modified", "last_modified_by")
	if k.single == "dyngroup" {
		varies = append(varies, "parsed")
	}
	c.same(without(after, varies...), show(without(before, varies...)))
	c.later(after, before)
	mixed := maps.Clone(change)
	mixed["wheels"], mixed["colour"] = 4, "red"
	c.PATCH(path, show(mixed)).reasoned(400, "Unhandled parameter(s): colour, wheels")
	c.PATCH(path, `{"uid":"other"}`).refused(400, "Unhandled parameter(s)")
	c.PATCH(path, `"word"`).refused(400)
	c.same(c.GET(path).object(), show(after))
	c.PATCH("/"+k.single+"/nobody", "{}").refused(404, "found for ID=nobody")
}

func (k class) put(c *check) {
	uid, path := k.made(c, k.full)
	fresh, freshPath := k.made(c, k.min)
	min := c.GET(freshPath).object()
	in := k.body(c, k.min)
	c.DELETE(freshPath).done()
	c.PUT(path, show(in)).done()
	now := c.GET(path).object()
	k.holds(c, now, in)
	if now["uid"] != uid || uid == fresh {
		c.fail("PUT changed the UID %s to %v", uid, now["uid"])
	}
	if !slices.Equal(keysOf(now), keysOf(min)) && k.single != "node" {
		c.fail("after PUT it has %v, a new one has %v", keysOf(now), keysOf(min))
	}
	c.PUT(path, show(now)).done() // as it was read
	c.same(without(c.GET(path).object(), stamps...), show(without(now, stamps...)))
	for field := range in {
		if field != "ip" || k.single == "node" {
			c.PUT(path, show(without(in, field))).refused(400, field)
		}
	}
	in["colour"] = "red"
	c.PUT(path, show(in)).reasoned(400, "Unhandled parameter(s): colour")
	c.PUT("/"+k.single+"/nobody", "{}").refused(404, "found for ID=nobody")
}

func (k class) delete(c *check) {
	_, path := k.made(c, k.min)
	c.DELETE(path).done()
	c.GET(path).refused(404)
	c.DELETE(path).refused(404, "found for ID="+path[strings.LastIndex(path, "/")+1:])
	for _, field := range k.names {
		_, path := k.made(c, k.full)
		id, _ := c.GET(path).object()[field].(string)
		c.DELETE("/" + k.single + "/" + id).done()
		c.GET(path).refused(404)
	}
	c.DELETE("/"+k.single+"/nobody").refused(404, "found for ID=nobody")
}

func (k class) meta(c *check) {
	described := map[string]bool{}
	for _, f := range c.anybody().GET("/" + k.plural + "/meta").list() {
		m, _ := f.(map[string]any)
		for _, key := range []string{"path", "summary", "source", "format"} {
			if text, _ := m[key].(string); text == "" {
				c.fail("%s has no %s", show(f), key)
			}
		}
		path, _ := m["path"].(string)
		described[path] = true
	}
	for field := range k.body(c, k.full) {
		if !described[field] {
			c.fail("%s is not described", field)
		}
	}
	for _, field := range append(strings.Fields(k.shown), stamps...) {
		if !described[field] {
			c.fail("%s is not described", field)
		}
	}
}
