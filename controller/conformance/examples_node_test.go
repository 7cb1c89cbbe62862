package conformance

import "slices"

// machineRoom is what the examples about nodes find there: a network from
// 192.168.122.100 on, and the nodes n0 to n2.
func machineRoom(c *check) {
	c.POST("/nets", `{"first_ip":"192.168.122.100","ip_count":100,"mask_bits":24}`).uid()
	for _, mac := range []string{"52:54:00:00:00:00", "52:54:00:00:00:01", "52:54:00:00:00:02"} {
		c.POST("/nodes", `{"mac":"`+mac+`"}`).uid()
	}
}

func nodeStory() []example {
	var uid string
	var node map[string]any
	return []example{
		{"W15", "create a node", func(c *check) { uid = c.POST("/nodes", `{"mac":"11:22:33:44:55:66"}`).uid() }},
		{"W16", "it has the next index, and with it name and address", func(c *check) {
			node = c.GET("/node/"+uid).has("mac", `"11:22:33:44:55:66"`, "attributes", `{"_boot_config":"DefaultBoot"}`, "index", `3`, "ip", `"192.168.122.103"`,
				"type", `"compute"`, "uid", show(uid), "groups", `[]`, "hardware", `{}`, "power_uri", `null`, "name", `"n3"`, "hostname", `"n3"`, "domain", `"cluster.local"`)
			c.stamped(node)
			if _, ok := node["power_uri"]; !ok {
				c.fail("power_uri is not shown")
			}
		}},
		{"W17", "the same by MAC", func(c *check) { c.GET("/node/11:22:33:44:55:66").is(show(node)) }},
		{"W18", "the same by name", func(c *check) { c.GET("/node/n3").is(show(node)) }},
		{"W19", "give it two attributes", func(c *check) {
			c.PATCH("/node/n3/attributes", `{"ipmi_user":"service","ipmi_pass":"servicepass"}`).done()
		}},
		{"W20", "they stand beside the inherited one", func(c *check) {
			c.GET("/node/n3/attributes").is(`{"_boot_config":"DefaultBoot","ipmi_user":"service","ipmi_pass":"servicepass"}`)
		}},
		{"W21", "set a power_uri made of them", func(c *check) {
			c.PATCH("/node/n3", `{"power_uri":"ipmi://<ipmi_user>:<ipmi_pass>@10.10.1.3/ipmi"}`).done()
		}},
		{"W22", "read it filled in", func(c *check) {
			c.GET("/node/n3/power_uri").is(`{"unparsed":"ipmi://service:servicepass@10.10.1.3/ipmi","parsed":{"scheme":"ipmi","schemes":"","server":"10.10.1.3","path":"ipmi",
				"server_username":"service:servicepass","username":null,"password":null,"host":"ipmi"}}`)
		}},
		{"W22b", "the node keeps the template", func(c *check) {
			c.GET("/node/n3").has("power_uri", `"ipmi://<ipmi_user>:<ipmi_pass>@10.10.1.3/ipmi"`)
		}},
		{"W23", "ask whether it is on", func(c *check) {
			bmc := startBMC(c)
			c.PATCH("/node/n3", `{"power_uri":null,"redfish_uri":`+show(bmc.URL)+`}`).done()
			if got := c.GET("/node/n3/power_state").decoded(); !slices.Contains([]any{"on", "off", "unknown"}, got) {
				c.fail("the power state is %v", got)
			}
		}},
		{"W24", "switch it off", func(c *check) {
			c.PUT("/node/n3/power_state", `{"state":"power off"}`).done()
			c.GET("/node/n3/power_state").is(`"off"`)
		}},
	}
}

func bootStory() []example {
	const path = "/bootconfig/NewBoot"
	file := func(name string) func(*check) {
		return func(c *check) {
			c.PUT("/bootconfig/DefaultBoot/"+name, upload+name).done()
			c.same(string(c.GET("/bootconfig/DefaultBoot/"+name).bytes()), show(upload+name))
		}
	}
	return []example{
		{"W33", "create a boot configuration for an image", func(c *check) {
			c.POST("/bootconfigs", `{"name":"NewBoot","image":"DefaultImage"}`).uid()
		}},
		{"W34", "it shows the image's name and nothing unset", func(c *check) {
			o := c.GET(path).has("name", `"NewBoot"`, "image", `"DefaultImage"`)
			c.stamped(o)
			c.GET(path).lacks("boot_style", "description", "kernel", "frozen", "cmdline")
		}},
		{"W35", "freeze it", func(c *check) { c.PATCH(path, `{"frozen":true}`).done() }},
		{"W36", "now it cannot be changed, until it is thawed", func(c *check) {
			const why = "Cannot modify frozen boot configuration."
			c.PATCH(path, `{"description":"new description"}`).reasoned(409, why)
			c.PUT(path, `{"name":"NewBoot"}`).reasoned(409, why)
			c.DELETE(path).reasoned(409, why)
			c.PATCH(path, `{"frozen":false,"description":"new description"}`).reasoned(409, why)
			c.GET(path).lacks("description")
			c.PATCH(path, `{"frozen":false}`).done()
			c.PATCH(path, `{"description":"new description"}`).done()
		}},
		{"W37", "download the kernel", file("kernel")},
		{"W38", "download the initramfs", file("initramfs")},
	}
}

func imageStory() []example {
	var squash map[string]any
	return []example{
		{"W39", "create an image", func(c *check) { c.POST("/images", `{"name":"NewImage"}`).uid() }},
		{"W40", "an image with its content, the stamps of that, and where it is exported", func(c *check) {
			c.PUT("/image/DefaultImage/content", upload).done()
			o := c.GET("/image/DefaultImage").has("name", `"DefaultImage"`, "parent", `null`)
			c.stamped(o)
			content, _ := o["content"].(map[string]any)
			squash, _ = content["cwsquash"].(map[string]any)
			c.same(keysOf(without(squash, "sha256", "problem", "pieces", "index", "tree")), `["chksum","filename","mtime","size","uid"]`)
			c.same(squash["size"], show(len(upload)))
			c.same(squash["chksum"], `"sha1:`+sha1Of(upload)+`"`)
			if uid, _ := squash["uid"].(string); squash["filename"] != uid || !uidForm.MatchString(uid) {
				c.fail("filename and uid differ: %s", show(squash))
			}
			if content["last_modified"] == nil || content["last_modified_on"] == nil || content["last_modified_by"] != c.operator {
				c.fail("the content has no stamps: %s", show(content))
			}
			c.exported(o)
		}},
		{"W41", "what is known of the content", func(c *check) {
			c.GET("/image/DefaultImage/content/info").has("size", show(squash["size"]), "mtime", show(squash["mtime"]), "chksum", show(squash["chksum"]), "refcnt", `1`, "fmt", `"cwsquash"`)
		}},
	}
}

// exported says that an image names its target on every head.
func (c *check) exported(image map[string]any) {
	exports, _ := image["exports"].(map[string]any)
	if len(exports) == 0 {
		c.fail("no exports in %s", show(keysOf(image)))
	}
	uid, _ := image["uid"].(string)
	for head, e := range exports {
		on, _ := e.(map[string]any)
		target, _ := on["targetcli"].(map[string]any)
		location, _ := target["location"].(string)
		if target["category"] != "iscsi" || len(location) < len(uid) || location[len(location)-len(uid):] != uid || on["last_modified"] == nil {
			c.fail("the export on %s is %s", head, show(e))
		}
	}
}

func dyngroupStory() []example {
	return []example{
		{"W42", "a group of what has much memory", func(c *check) {
			c.POST("/dyngroups", `{"name":"BigMemory","selector":"h[ram_total] > 100GB"}`).uid()
		}},
		{"W43", "it shows the selector as it was written and in its normal form", func(c *check) {
			o := c.GET("/dyngroup/BigMemory").has("name", `"BigMemory"`, "selector", `"h[ram_total] > 100GB"`, "parsed", `"(hardware[\"ram_total\"] > 100GB)"`)
			c.stamped(o)
		}},
		{"W44", "its nodes", func(c *check) {
			c.GET("/dyngroup/BigMemory/nodes").is(`[]`)
			uid := c.POST("/nodes", `{"mac":"52:54:00:00:00:01"}`).uid()
			c.POST("/node/putstatus", `{"uid":"`+uid+`","hardware":{"ram_total":200000000}}`).done()
			c.GET("/dyngroup/BigMemory/nodes").is(show([]string{uid}))
		}},
		{"W45", "delete it", func(c *check) { c.DELETE("/dyngroup/BigMemory").done() }},
	}
}

func poolStory() []example {
	return []example{
		{"W46", "create a naming pool", func(c *check) { c.POST("/namingpools", `{"name":"gpu","pattern":"gpu{}"}`).uid() }},
		{"W47", "how a node of it is named", func(c *check) {
			c.GET("/namingpools/info/gpu0").reasoned(404, "No node found for ID=gpu0")
			c.POST("/nodes", `{"mac":"52:54:00:00:00:01","naming_pool":"gpu"}`).uid()
			c.GET("/namingpools/info/gpu0").is(`{"index":0,"pattern":"gpu{}"}`)
		}},
	}
}

func hostnameStory() []example {
	return []example{
		{"W48", "a name for a server, whose type follows from its address", func(c *check) {
			c.POST("/hostnames", `{"name":"nfsserver","ip":"10.1.1.10"}`).uid()
		}},
		{"W49", "it is an A record", func(c *check) {
			o := c.GET("/hostname/nfsserver").has("type", `"arec"`, "name", `"nfsserver"`, "ip", `"10.1.1.10"`)
			c.stamped(o)
		}},
	}
}
