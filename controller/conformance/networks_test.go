package conformance

import (
	"encoding/json"
	"slices"
)

func netSetup(c *check) {
	c.POST("/nets", `{"name":"compute","first_ip":"10.50.0.10","ip_count":20,"mask_bits":24,"node_iface":"bond0"}`).uid()
	c.POST("/nets", `{"name":"storage","first_ip":"172.31.7.10","ip_count":20,"mask_bits":24,"node_iface":"ib0"}`).uid()
}

// openAPI is the document that describes the API.
func (c *check) openAPI() (doc map[string]any) {
	a := c.anybody().GET("/openapi.json")
	c.must(json.Unmarshal(a.raw, &doc) == nil, "%s: %.100s", a.call, a.raw)
	return doc
}

// found says that a search gives exactly these networks.
func (c *check) found(path string, names ...string) {
	got := []string{}
	for _, o := range c.GET(path).list() {
		m, _ := o.(map[string]any)
		if uid, _ := m["uid"].(string); !uidForm.MatchString(uid) {
			c.fail("GET %s: %s has no uid", path, show(o))
		}
		name, _ := m["name"].(string)
		got = append(got, name)
	}
	slices.Sort(got)
	if !slices.Equal(got, names) {
		c.fail("GET %s finds %v, want %v", path, got, names)
	}
}

func netRows() []row {
	return []row{
		{"GET", "/nets/byiface/<PART>", token, "by a part of the interface's name; marked as deprecated", func(c *check) {
			c.found("/nets/byiface/bond0", "compute")
			c.found("/nets/byiface/b", "compute", "storage")
			c.found("/nets/byiface/eth9")
			if a := c.GET("/nets/byiface/ib"); a.header.Get("Deprecation") == "" {
				c.fail("%s: no Deprecation header", a.call)
			}
			for _, word := range []string{"byiface", "byname"} {
				paths, _ := c.openAPI()["paths"].(map[string]any)
				one, _ := paths[root+"/nets/"+word+"/{part}"].(map[string]any)
				get, _ := one["get"].(map[string]any)
				if marked, _ := get["deprecated"].(bool); get == nil || marked != (word == "byiface") {
					c.fail("the OpenAPI document says of %s: deprecated %v", word, get["deprecated"])
				}
			}
		}},
		{"GET", "/nets/byname/<NAME>", token, "by a part of the name", func(c *check) {
			c.found("/nets/byname/compute", "compute")
			c.found("/nets/byname/or", "storage")
			c.found("/nets/byname/nobody")
		}},
		{"GET", "/nets/byip/<IPADDR>", token, "by an address or a part of one", func(c *check) {
			c.found("/nets/byip/10.50.0.10", "compute")
			c.found("/nets/byip/172.31", "storage")
			c.found("/nets/byip/10.99.99")
			c.found("/nets/byip/192.168.1.1")
		}},
		{"GET", "/nets/bykey/<PART>", token, "by a part of the UID", func(c *check) {
			uid, _ := c.GET("/net/compute").object()["uid"].(string)
			c.found("/nets/bykey/"+uid, "compute")
			c.found("/nets/bykey/"+uid[:20], "compute")
			c.found("/nets/bykey/zzzz")
		}},
	}
}

// hostnameRows are those beyond the generic ones, under both words.
func hostnameRows(single string) []row {
	return []row{
		{"GET", "/" + single + "s/bypart/<PART>", token, "the UIDs that hold the part", func(c *check) {
			uid := c.POST("/"+single+"s", `{"name":"find-me","ip":"10.1.1.1"}`).uid()
			c.GET("/" + single + "s/bypart/" + uid).is(show([]string{uid}))
			if l := c.GET("/" + single + "s/bypart/" + uid[4:20]).list(); !slices.Contains(l, any(uid)) {
				c.fail("a part of %s finds %v", uid, l)
			}
			c.GET("/" + single + "s/bypart/zzzz").is(`[]`)
		}},
	}
}

func dyngroupRows() []row {
	return []row{
		{"GET", "/dyngroup/<UID>/nodes", token, "the nodes that the selector picks now; none is no error", func(c *check) {
			first := c.POST("/nodes", `{"mac":"52:54:00:00:70:01","attributes":{"rack":"r1"}}`).uid()
			c.POST("/nodes", `{"mac":"52:54:00:00:70:02"}`).uid()
			c.POST("/dyngroups", `{"name":"inherited","selector":"a[_boot_config]==\"DefaultBoot\""}`).uid()
			if n := len(c.GET("/dyngroup/inherited/nodes").list()); n != 2 {
				c.fail("%d nodes are in a group by an inherited attribute, not 2", n)
			}
			group := c.POST("/dyngroups", `{"name":"rack","selector":"a[rack] == \"r1\""}`).uid()
			c.GET("/dyngroup/" + group + "/nodes").is(show([]string{first}))
			c.PATCH("/node/n0/attributes", `{"rack":"r2"}`).done()
			c.GET("/dyngroup/rack/nodes").is(`[]`)
			c.PATCH("/dyngroup/rack", `{"selector":"h[ram_total] > 100GB"}`).done()
			c.POST("/node/putstatus", `{"uid":"n0","hardware":{"ram_total":97656251}}`).done() // KiB
			c.POST("/node/putstatus", `{"uid":"n1","hardware":{"ram_total":97656250}}`).done()
			c.GET("/dyngroup/rack/nodes").is(show([]string{first}))
			c.GET("/dyngroup/rack").has("parsed", `"(hardware[\"ram_total\"] > 100GB)"`)
			c.POST("/dyngroups", `{"name":"wrong","selector":"a[rack] =="}`).refused(400, "selector")
			c.GET("/dyngroup/nobody/nodes").reasoned(404, "No dyngroup found for ID=nobody")
		}},
	}
}

func namingpoolRows() []row {
	return []row{
		{"GET", "/namingpools/info/<NODE>", token, "the index and the pattern of a node, named in any way", func(c *check) {
			c.POST("/namingpools", `{"name":"wide","pattern":"wide{:03d}","first_index":7}`).uid()
			uid := c.POST("/nodes", `{"mac":"52:54:00:00:80:01","naming_pool":"wide"}`).uid()
			for _, id := range []string{uid, "wide007", "52:54:00:00:80:01"} {
				c.GET("/namingpools/info/" + id).is(`{"index":7,"pattern":"wide{:03d}"}`)
			}
			c.GET("/namingpools/info/nobody").reasoned(404, "No node found for ID=nobody")
		}},
		{"PUT", "/namingpool/<UID>/push", token, "gives the pool's nodes the names of its pattern", func(c *check) {
			c.POST("/namingpools", `{"name":"push","pattern":"old{}"}`).uid()
			uid := c.POST("/nodes", `{"mac":"52:54:00:00:80:02","naming_pool":"push"}`).uid()
			c.GET("/node/old0").has("uid", show(uid))
			c.PATCH("/namingpool/push", `{"pattern":"new{:02d}"}`).done()
			c.PUT("/namingpool/push/push", "").ok()
			c.GET("/node/new00").has("uid", show(uid), "hostname", `"new00"`)
			c.GET("/node/old0").refused(404)
			c.PUT("/namingpool/nobody/push", "").reasoned(404, "No namingpool found for ID=nobody")
		}},
	}
}
