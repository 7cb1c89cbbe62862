package conformance

import (
	"encoding/json"
	"strings"
)

// nodesSetup makes node n0 at 127.66.0.10 with all that gives it attributes.
func nodesSetup(c *check) {
	c.POST("/nets", `{"first_ip":"127.66.0.10","ip_count":200,"mask_bits":24}`).uid()
	c.POST("/attribs", `{"name":"first","attributes":{"who":"first","first":1}}`).uid()
	c.POST("/attribs", `{"name":"second","attributes":{"who":"second","second":2}}`).uid()
	c.POST("/nodes", `{"mac":"52:54:00:00:00:01"}`).uid()
	c.has("/node/n0", "ip", `"127.66.0.10"`)
}

func nodeGroupRows() []row {
	return []row{
		{"GET", "/node/<UID>/groups", token, "the UIDs of the groups, in order", func(c *check) {
			c.PATCH("/node/n0", `{"groups":["second","first"]}`).done()
			c.GET("/node/n0/groups").is(c.uidsOf("attrib", "second", "first"))
			c.GET("/node/nobody/groups").reasoned(404, "No node found for ID=nobody")
		}},
		{"POST", "/node/<UID>/groups", token, "appends one or more, by UID or name, in order and none twice", func(c *check) {
			c.PATCH("/node/n0", `{"groups":[]}`).done()
			c.POST("/node/n0/groups", `"first"`).done()
			c.POST("/node/n0/groups", `["first","second"]`).done()
			c.GET("/node/n0/groups").is(c.uidsOf("attrib", "first", "second"))
			c.POST("/node/n0/groups", `"nobody"`).refused(0, "nobody")
			c.POST("/node/n0/groups", `first`).refused(400)
			c.GET("/node/n0/groups").is(c.uidsOf("attrib", "first", "second"))
		}},
		{"DELETE", "/node/<UID>/groups", token, "removes one or more; others stay, absent ones are ignored", func(c *check) {
			c.PATCH("/node/n0", `{"groups":["first","second"]}`).done()
			c.DELETE("/node/n0/groups", `"first"`).done()
			c.GET("/node/n0/groups").is(c.uidsOf("attrib", "second"))
			c.DELETE("/node/n0/groups", `["first","nobody","second"]`).done()
			c.GET("/node/n0/groups").is(`[]`)
		}},
	}
}

func nodeAttributeRows() []row {
	const path = "/node/n0/attributes"
	own := func(c *check, body string) {
		c.PATCH("/node/n0", `{"groups":["first","second"],"attributes":`+body+`}`).done()
	}
	return []row{
		{"GET", "/node/<UID>/attributes", token, "default group, groups in order, then the node's own; no stamps", func(c *check) {
			own(c, `{"own":true}`)
			c.GET(path).is(`{"_boot_config":"DefaultBoot","who":"second","first":1,"second":2,"own":true}`)
			own(c, `{"who":"me"}`)
			c.GET(path).is(`{"_boot_config":"DefaultBoot","who":"me","first":1,"second":2}`)
			c.PATCH("/node/n0", `{"groups":["second","first"],"attributes":{}}`).done()
			c.GET("/node/52:54:00:00:00:01/attributes").is(`{"_boot_config":"DefaultBoot","who":"first","first":1,"second":2}`)
		}},
		{"PUT", "/node/<UID>/attributes", token, "replaces the node's own; inherited ones stay visible", func(c *check) {
			own(c, `{"a":"1","b":"2"}`)
			c.PUT(path, `{"c":"3"}`).done()
			c.GET(path).is(`{"_boot_config":"DefaultBoot","who":"second","first":1,"second":2,"c":"3"}`)
			c.PUT(path, `["c"]`).refused(400)
		}},
		{"PATCH", "/node/<UID>/attributes", token, "merges into the node's own, which win over groups", func(c *check) {
			own(c, `{"a":"1"}`)
			c.PATCH(path, `{"who":"me","b":"2"}`).done()
			c.GET(path).is(`{"_boot_config":"DefaultBoot","who":"me","first":1,"second":2,"a":"1","b":"2"}`)
			c.PATCH(path, `{"b":{"nested":1}}`).refused(400, "b")
		}},
		{"DELETE", "/node/<UID>/attributes", token, "removes own keys; what groups give comes back", func(c *check) {
			own(c, `{"who":"me","a":"1","b":"2"}`)
			c.DELETE(path, `"a"`).done()
			c.DELETE(path, `["who","first","absent"]`).done()
			c.GET(path).is(`{"_boot_config":"DefaultBoot","who":"second","first":1,"second":2,"b":"2"}`)
		}},
		{"POST", "/node/<UID>/attributes", token, "merges, as PATCH does", func(c *check) {
			own(c, `{"a":"1"}`)
			c.POST(path, `{"b":"2"}`).done()
			c.GET(path).is(`{"_boot_config":"DefaultBoot","who":"second","first":1,"second":2,"a":"1","b":"2"}`)
		}},
	}
}

func nodePowerRows() []row {
	return []row{
		{"GET", "/node/<UID>/power_uri", token, "the template filled in, whole and in parts; the node keeps the template", func(c *check) {
			c.PATCH("/node/n0", `{"attributes":{"user":"u","pass":"p"},"power_uri":"ipmi://<user>:<pass>@10.1.1.1/ipmi"}`).done()
			c.GET("/node/n0/power_uri").is(`{"unparsed":"ipmi://u:p@10.1.1.1/ipmi","parsed":{"scheme":"ipmi","schemes":"","server":"10.1.1.1","path":"ipmi","server_username":"u:p","username":null,"password":null,"host":"ipmi"}}`)
			c.GET("/node/n0").has("power_uri", `"ipmi://<user>:<pass>@10.1.1.1/ipmi"`)
			c.PATCH("/node/n0/attributes", `{"user":"v"}`).done()
			c.GET("/node/n0/power_uri").has("unparsed", `"ipmi://v:p@10.1.1.1/ipmi"`)
			c.PATCH("/node/n0", `{"power_uri":"ipmi://<nobody>@10.1.1.1"}`).done()
			c.GET("/node/n0/power_uri").refused(0, "nobody")
			c.PATCH("/node/n0", `{"power_uri":null}`).done()
			c.GET("/node/n0/power_uri").refused(0)
		}},
		{"GET", "/node/<UID>/power_state", token, "on, off or unknown, as a bare string", func(c *check) {
			bmc := startBMC(c)
			c.PATCH("/node/n0", `{"power_uri":null,"redfish_uri":`+show(bmc.URL)+`}`).done()
			c.GET("/node/n0/power_state").is(`"on"`)
			bmc.set("Off")
			c.GET("/node/n0/power_state").is(`"off"`)
			c.GET("/node/nobody/power_state").reasoned(404, "No node found for ID=nobody")
		}},
		{"PUT", "/node/<UID>/power_state", token, "switches on and off; a missing or wrong state is refused with the valid ones", func(c *check) {
			bmc := startBMC(c)
			c.PATCH("/node/n0", `{"power_uri":null,"redfish_uri":`+show(bmc.URL)+`}`).done()
			c.PUT("/node/n0/power_state", `{"state":"power off","force":true}`).ok()
			c.GET("/node/n0/power_state").is(`"off"`)
			c.PUT("/node/n0/power_state", `{"state":"on"}`).ok()
			c.GET("/node/n0/power_state").is(`"on"`)
			c.PUT("/node/n0/power_state", `{"state":"sideways"}`).refused(0, "power on", "power off")
			c.PUT("/node/n0/power_state", `{}`).refused(0, "power on", "power off")
			c.PUT("/node/n0/power_state", `{"state":"on","colour":"red"}`).refused(400, "colour")
			c.PUT("/node/n0/power_state", `{"state":"on","force":"yes"}`).refused(400, "force")
		}},
	}
}

func nodeReportRows() []row {
	return []row{
		{"GET", "/node/<UID>/status", token, "what the node last reported", func(c *check) {
			c.POST("/node/putstatus", `{"uid":"n0","status":{"load_avg":[1,2,3],"modules":["ext4"]}}`).done()
			c.GET("/node/n0/status").has("load_avg", `[1,2,3]`, "modules", `["ext4"]`)
			c.GET("/node/nobody/status").reasoned(404, "No node found for ID=nobody")
		}},
		{"POST", "/node/putstatus", token, "replaces the sections that are sent, for the node that uid names in any way", func(c *check) {
			c.POST("/node/putstatus", `{"uid":"n0","status":{"old":1},"hardware":{"ram_total":1}}`).done()
			c.POST("/node/putstatus", `{"uid":"52:54:00:00:00:01","status":{"new":2}}`).done()
			c.GET("/node/n0/status").lacks("old")
			c.GET("/node/n0/status").has("new", `2`)
			c.GET("/node/n0").has("hardware", `{"ram_total":1}`)
			c.POST("/node/putstatus", `{"status":{}}`).refused(400, "uid")
			c.POST("/node/putstatus", `{"uid":"nobody","status":{}}`).reasoned(404, "No node found for ID=nobody")
			c.POST("/node/putstatus", `{"uid":"n0","status":[]}`).refused(400, "status")
			c.POST("/node/putstatus", `{"uid":"n0","colour":{}}`).refused(400, "colour")
		}},
		{"POST", "/node/putattribs", token, "adds to the node's attributes; uid is none of them", func(c *check) {
			c.PATCH("/node/n0", `{"groups":[],"attributes":{"a":"1"}}`).done()
			c.POST("/node/putattribs", `{"uid":"127.66.0.10","b":"2"}`).done()
			c.GET("/node/n0/attributes").is(`{"_boot_config":"DefaultBoot","a":"1","b":"2"}`)
			c.POST("/node/putattribs", `{"b":"2"}`).refused(400, "uid")
			c.POST("/node/putattribs", `{"uid":"nobody","b":"2"}`).reasoned(404, "No node found for ID=nobody")
		}},
		{"PUT", "/node/putstatus", ownNode, "the same for the node that calls, without a uid", func(c *check) {
			n := c.at("127.66.0.10")
			n.PUT("/node/putstatus", `{"status":{"mine":1},"hardware":{"cpu_count":8}}`).done()
			c.GET("/node/n0/status").has("mine", `1`)
			c.GET("/node/n0").has("hardware", `{"cpu_count":8}`)
			n.PUT("/node/putstatus", `{"uid":"n0","status":{}}`).refused(400, "uid")
		}},
		{"PUT", "/node/putattribs", ownNode, "the same for the node that calls, without a uid", func(c *check) {
			c.PATCH("/node/n0", `{"groups":[],"attributes":{"a":"1"}}`).done()
			c.at("127.66.0.10").PUT("/node/putattribs", `{"b":"2"}`).done()
			c.GET("/node/n0/attributes").is(`{"_boot_config":"DefaultBoot","a":"1","b":"2"}`)
			c.at("127.66.0.10").PUT("/node/putattribs", `{"uid":"n0","b":"3"}`).refused(400, "uid")
		}},
		{"PUT", "/node/<UID>/exec", token, "runs a command with its input; the output comes raw", func(c *check) {
			c.PUT("/node/n0/exec", `{"cmd":"true"}`).refused(0) // nobody is there
			c.agent("n0", "127.66.0.10")
			c.PUT("/node/n0/exec", `{"cmd":"tr a-z A-Z; echo done","stdin":"in and out\n"}`).text("IN AND OUT\ndone\n")
			a := c.PUT("/node/n0/exec", `{"cmd":"echo err >&2; exit 3"}`)
			a.text("err\n")
			if got := a.trailer.Get("X-Exit-Status"); got != "3" {
				c.fail("%s: the exit status is told as %q", a.call, got)
			}
			c.PUT("/node/n0/exec", `{"stdin":"x"}`).refused(400, "cmd")
			c.PUT("/node/nobody/exec", `{"cmd":"true"}`).reasoned(404, "No node found for ID=nobody")
		}},
	}
}

// uidsOf gives the UIDs of objects as JSON.
func (c *check) uidsOf(single string, names ...string) string {
	uids := []string{}
	for _, name := range names {
		uid, _ := c.GET("/" + single + "/" + strings.ReplaceAll(name, " ", "%20")).object()["uid"].(string)
		uids = append(uids, uid)
	}
	raw, _ := json.Marshal(uids)
	return string(raw)
}

// has says what an object holds.
func (c *check) has(path string, pairs ...string) map[string]any { return c.GET(path).has(pairs...) }
