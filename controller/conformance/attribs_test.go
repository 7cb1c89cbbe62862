package conformance

func attribRows() []row {
	const path = "/attrib/attrs/attributes"
	reset := func(c *check) { c.PATCH("/attrib/attrs", `{"attributes":{"foo":"bar","n":1}}`).done() }
	// What stamps the answer is no attribute.
	are := func(c *check, want string) { c.same(without(c.GET(path).object(), stamps...), want) }
	patch := func(prefix string) func(c *check) {
		return func(c *check) {
			reset(c)
			c.PATCH("/"+prefix+"/attrs/attributes", `{"abc":"def","n":2}`).done()
			are(c, `{"foo":"bar","abc":"def","n":2}`)
			c.PATCH("/"+prefix+"/attrs/attributes", `{"deep":{"er":1}}`).refused(400, "deep")
			are(c, `{"foo":"bar","abc":"def","n":2}`)
		}
	}
	return []row{
		{"GET", "/attrib/<UID>/attributes", token, "keys and values; stamped once they were edited for themselves, not before", func(c *check) {
			uid := c.POST("/attribs", `{"name":"fresh","attributes":{"foo":"bar"}}`).uid()
			c.GET("/attrib/" + uid + "/attributes").is(`{"foo":"bar"}`)
			c.PATCH("/attrib/fresh/attributes", `{"foo":"baz"}`).done()
			o := c.GET("/attrib/fresh/attributes").has("foo", `"baz"`)
			if t, _ := o["last_modified"].(float64); t < 1e9 || o["last_modified_by"] != c.operator || o["last_modified_on"] == nil {
				c.fail("no stamps in %s", show(o))
			}
			c.PUT("/attrib/fresh/attributes", show(o)).done() // as it was read
			c.GET("/attrib/fresh").has("attributes", `{"foo":"baz"}`)
			c.GET("/attrib/nobody/attributes").reasoned(404, "No attrib found for ID=nobody")
		}},
		{"PUT", "/attrib/<UID>/attributes", token, "replaces all", func(c *check) {
			reset(c)
			c.PUT(path, `{"abc":"def"}`).done()
			are(c, `{"abc":"def"}`)
			c.PUT(path, `"abc"`).refused(400)
		}},
		{"PATCH", "/attrib/<UID>/attributes", token, "merges; one level deep only", patch("attrib")},
		{"DELETE", "/attrib/<UID>/attributes", token, "removes one key or several", func(c *check) {
			reset(c)
			c.DELETE(path, `["n","absent"]`).done()
			are(c, `{"foo":"bar"}`)
			c.DELETE(path, `"foo"`).done()
			are(c, `{}`)
			c.DELETE(path, `foo`).refused(400)
		}},
		{"PATCH", "/attribs/<UID>", token, "the same as under the singular", func(c *check) {
			reset(c)
			c.PATCH("/attribs/attrs", `{"attributes":{"only":"this"}}`).done()
			c.GET("/attrib/attrs").has("attributes", `{"only":"this"}`)
		}},
		{"PATCH", "/attribs/<UID>/attributes", token, "the same as under the singular", patch("attribs")},
	}
}

func attribSetup(c *check) { c.POST("/attribs", `{"name":"attrs"}`).uid() }

const (
	keyOne     = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHDGa51ZBbZi97zfZLMXUuSdLFBqxiAnsKZYHDTCKIPo one@desk"
	keyTwo     = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHDGa51ZBbZi97zfZLMXUuSdLFBqxiAnsKZYHDTCKIPo two@desk"
	privateKey = "-----BEGIN OPENSSH PRIVATE KEY-----"
)

func adminSetup(c *check) { c.POST("/admins", `{"name":"jo"}`).uid() }

func adminRows() []row {
	const gui, keys = "/admin/jo/gui_settings", "/admin/jo/keys"
	return []row{
		{"GET", "/admin/<UID>/gui_settings", token, "the settings", func(c *check) {
			c.PATCH("/admin/jo", `{"gui_settings":{"theme":"dark"}}`).done()
			c.GET(gui).is(`{"theme":"dark"}`)
		}},
		{"PATCH", "/admin/<UID>/gui_settings", token, "merges by key; the main record replaces them whole", func(c *check) {
			c.PATCH("/admin/jo", `{"gui_settings":{"theme":"dark","size":{"w":1}}}`).done()
			c.PATCH(gui, `{"theme":"light","new":[1]}`).done()
			c.GET(gui).is(`{"theme":"light","size":{"w":1},"new":[1]}`)
		}},
		{"DELETE", "/admin/<UID>/gui_settings", token, "removes one key or several, all without a body", func(c *check) {
			c.PATCH("/admin/jo", `{"gui_settings":{"a":1,"b":2,"c":3,"d":4}}`).done()
			c.DELETE(gui, `"a"`).done()
			c.DELETE(gui, `["b","absent"]`).done()
			c.GET(gui).is(`{"c":3,"d":4}`)
			c.DELETE(gui).done()
			c.GET(gui).is(`{}`)
		}},
		{"POST", "/admin/<UID>/keys", token, "appends public keys; a private one is refused", func(c *check) {
			c.PATCH("/admin/jo", `{"keys":null}`).done()
			c.POST(keys, show(keyOne)).done()
			c.POST(keys, show([]string{keyTwo})).done()
			c.GET("/admin/jo").has("keys", show([]string{keyOne, keyTwo}))
			c.POST(keys, show(privateKey)).refused(400, "private")
			c.POST(keys, `"ssh-rsa nonsense"`).refused(400)
		}},
		{"PUT", "/admin/<UID>/keys", token, "replaces the list", func(c *check) {
			c.PUT(keys, show([]string{keyOne, keyTwo})).done()
			c.PUT(keys, show([]string{keyTwo})).done()
			c.GET("/admin/jo").has("keys", show([]string{keyTwo}))
			c.PUT(keys, `["nonsense"]`).refused(400)
		}},
		{"DELETE", "/admin/<UID>/keys", token, "removes one key or several", func(c *check) {
			c.PUT(keys, show([]string{keyOne, keyTwo})).done()
			c.DELETE(keys, show(keyOne)).done()
			c.GET("/admin/jo").has("keys", show([]string{keyTwo}))
			c.DELETE(keys, show([]string{keyOne, keyTwo})).done()
			c.GET("/admin/jo/keys").is(`[]`)
		}},
		{"POST", "/admin/<UID>/newtoken", token, "a token that acts as the admin, for as long as asked", func(c *check) {
			a := c.POST("/admin/jo/newtoken", `{"timeout":90}`)
			o := a.has("userid", `"jo"`, "uid", show(c.GET("/admin/jo").object()["uid"]))
			t, _ := o["token"].(map[string]any)
			c.same(t["expires_in"], `90`)
			mine, _ := t["access_token"].(string)
			c.with(mine).GET("/whoami").has("userid", `"jo"`)
			for _, wrong := range []string{`0`, `-5`, `true`, `"10"`, `1.5`} {
				c.POST("/admin/jo/newtoken", `{"timeout":`+wrong+`}`).refused(400, "timeout")
			}
			c.PATCH("/admin/jo", `{"roles":["role.authuser"]}`).done()
			t, _ = c.POST("/admin/jo/newtoken", "").object()["token"].(map[string]any)
			weak, _ := t["access_token"].(string)
			c.with(weak).POST("/admin/"+c.operator+"/newtoken", "").refused(403)
			c.with(weak).POST("/admin/jo/newtoken", "").ok()
			c.POST("/admin/nobody/newtoken", "").reasoned(404, "No admin found for ID=nobody")
		}},
	}
}
