package conformance

// stories are the worked examples by which the published API is explained,
// told in order; names and values are its own.
func stories() []story {
	return []story{
		{"login", true, nil, loginStory()},
		{"objects", false, nil, objectStory()},
		{"admins", false, nil, adminStory()},
		{"nodes", false, machineRoom, nodeStory()},
		{"attribute groups", false, nil, attribStory()},
		{"boot configurations", false, nil, bootStory()},
		{"images", false, nil, imageStory()},
		{"dynamic groups", false, nil, dyngroupStory()},
		{"naming pools", false, nil, poolStory()},
		{"hostnames", false, nil, hostnameStory()},
	}
}

func loginStory() []example {
	var user, access, refresh string
	return []example{
		{"W1", "log in with a password", func(c *check) {
			const pass = "password of a user"
			user = c.osUser(pass)
			c.POST("/admins", `{"name":`+show(user)+`}`).uid()
			a := c.anybody().POST("/login", `{"user":`+show(user)+`,"pass":`+show(pass)+`}`)
			access, refresh = a.tokens()
			a.has("user", show(user))
		}},
		{"W2", "renew the tokens", func(c *check) {
			if user == "" {
				user, access, refresh = c.operator, c.token, c.refresh
			}
			a := c.with(refresh).GET("/newtoken")
			a.has("authorized_by", show(user), "userid", show(user), "uid", show(c.GET("/admin/" + user).object()["uid"]))
			a.tokens()
			c.with(access).GET("/newtoken").refused(401)
			c.with(refresh).GET("/nodes").refused(401)
		}},
	}
}

func objectStory() []example {
	var uid string
	return []example{
		{"W3", "create a node; its MAC cannot be used again", func(c *check) {
			uid = c.POST("/nodes", `{"mac":"52:54:00:00:00:03"}`).uid()
			c.POST("/nodes", `{"mac":"52:54:00:00:00:03"}`).reasoned(409, "Node with MAC=52:54:00:00:00:03 already exists.")
		}},
		{"W4", "change one field", func(c *check) {
			before := c.GET("/node/" + uid).object()
			c.PATCH("/node/"+uid, `{"description":"this is a new description"}`).done()
			after := c.GET("/node/" + uid).object()
			c.same(after["description"], `"this is a new description"`)
			c.same(without(after, append(stamps, "description")...), show(without(before, stamps...)))
			c.PATCH("/node/"+uid, `{"nonsense":1}`).reasoned(400, "Unhandled parameter(s): nonsense")
		}},
		{"W5", "delete by name", func(c *check) {
			c.DELETE("/image/DefaultImage").done()
			c.DELETE("/image/DefaultImage").reasoned(404, "No image found for ID=DefaultImage")
		}},
		{"W6", "what a node is made of, without a token", func(c *check) {
			for _, f := range c.anybody().GET("/nodes/meta").list() {
				m, _ := f.(map[string]any)
				if m["path"] == nil || m["summary"] == nil || m["source"] == nil || m["format"] == nil {
					c.fail("%s lacks something", show(f))
				}
			}
		}},
		{"W7", "the envelope of success and of failure", func(c *check) {
			c.GET("/node/n123").reasoned(404, "No node found for ID=n123")
			c.POST("/nodes", `{"mac":"52:54:00:00:00:04"}`).uid()
		}},
		{"W8", "list objects by UID", func(c *check) {
			o := c.GET("/nodes").object()
			if m, ok := o[uid].(map[string]any); len(o) != 2 || !ok || m["mac"] != "52:54:00:00:00:03" {
				c.fail("the list is %s", show(o))
			}
		}},
	}
}

func adminStory() []example {
	var uid string
	var first map[string]any
	return []example{
		{"W9", "create an admin", func(c *check) { uid = c.POST("/admins", `{"name":"admin2"}`).uid() }},
		{"W10", "it has its creator's roles and no description", func(c *check) {
			first = c.GET("/admin/"+uid).has("name", `"admin2"`, "roles", `["role.authuser","role.fulladmin"]`, "uid", show(uid), "last_modified_by", show(c.operator))
			c.stamped(first)
			c.GET("/admin/" + uid).lacks("description")
		}},
		{"W11", "describe it", func(c *check) { c.PATCH("/admin/admin2", `{"description":"John Doe, HPC admin"}`).done() }},
		{"W12", "replace its roles", func(c *check) { c.PATCH("/admin/admin2", `{"roles":["role.authuser"]}`).done() }},
		{"W13", "both changes are there", func(c *check) {
			o := c.GET("/admin/admin2").has("name", `"admin2"`, "roles", `["role.authuser"]`, "description", `"John Doe, HPC admin"`, "uid", show(uid))
			c.stamped(o)
			c.later(o, first)
		}},
		{"W14", "delete it", func(c *check) {
			c.DELETE("/admin/admin2").done()
			c.GET("/admin/admin2").refused(404)
		}},
	}
}

func attribStory() []example {
	const path = "/attrib/MyAttribs"
	var first map[string]any
	return []example{
		{"W25", "create an attribute group", func(c *check) { c.POST("/attribs", `{"name":"MyAttribs"}`).uid() }},
		{"W26", "it has no attributes yet", func(c *check) {
			first = c.GET(path).has("name", `"MyAttribs"`, "attributes", `{}`)
			c.stamped(first)
		}},
		{"W27", "replace the attributes", func(c *check) { c.PATCH(path, `{"attributes":{"foo":"bar"}}`).done() }},
		{"W28", "they are there, and the stamp is later", func(c *check) {
			o := c.GET(path).has("attributes", `{"foo":"bar"}`, "uid", show(first["uid"]))
			c.later(o, first)
		}},
		{"W29", "the attributes alone, without stamps", func(c *check) { c.GET(path + "/attributes").is(`{"foo":"bar"}`) }},
		{"W30", "add one for itself", func(c *check) { c.PATCH(path+"/attributes", `{"abc":"def"}`).done() }},
		{"W31", "both are there, with stamps of that edit", func(c *check) {
			o := c.GET(path+"/attributes").has("foo", `"bar"`, "abc", `"def"`)
			c.same(keysOf(o), `["abc","foo","last_modified","last_modified_by","last_modified_on"]`)
		}},
		{"W32a", "remove it again", func(c *check) { c.DELETE(path+"/attributes", `["abc"]`).done() }},
		{"W32b", "the other one is left", func(c *check) {
			o := c.GET(path+"/attributes").has("foo", `"bar"`)
			c.same(keysOf(o), `["foo","last_modified","last_modified_by","last_modified_on"]`)
		}},
		{"W32c", "delete the group", func(c *check) {
			c.DELETE(path).done()
			c.GET(path).refused(404)
		}},
	}
}
