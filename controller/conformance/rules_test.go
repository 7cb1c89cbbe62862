package conformance

import (
	"fmt"
	"strings"
	"testing"
)

// TestRules holds the head to what the published API says between its lines:
// rules that no single endpoint shows.
func TestRules(t *testing.T) {
	h := startHead(t, false)
	var all []*result
	for _, e := range rules() {
		c := h.try(e.check)
		all = append(all, &result{name: e.id, holds: e.shows, problems: c.problems, skipped: c.skipped})
	}
	report(t, "rules", all, len(all), len(all))
}

// fresh makes an object of that body, in which # is a number of its own, and
// gives its path.
func (c *check) fresh(plural, body string) string {
	n := fmt.Sprint(serial.Add(1))
	return "/" + strings.TrimSuffix(plural, "s") + "/" + c.POST("/"+plural, strings.ReplaceAll(body, "#", n)).uid()
}

// identifier is the last word of a path.
func identifier(path string) string { return path[strings.LastIndex(path, "/")+1:] }

// takes says which values a field may have, and which not.
func (c *check) takes(plural, min, field string, good, bad []string) {
	path := c.fresh(plural, min)
	for _, v := range good {
		c.PATCH(path, `{"`+field+`":`+v+`}`).done()
	}
	for _, v := range bad {
		c.PATCH(path, `{"`+field+`":`+v+`}`).refused(400, field)
	}
}

func rules() []example {
	return []example{
		{"envelope", "bodies are JSON whatever they are called; a wrong one is refused in the envelope", func(c *check) {
			for _, body := range []string{`{`, `{}{}`, `{"name":"a","name":"b"}`, "{\"name\":\"\xff\"}", `{"name":NaN}`, strings.Repeat("[", 10000)} {
				c.POST("/attribs", body).refused(400)
			}
			c.POST("/attribs", `{"name":"`+strings.Repeat("x", 10<<20)+`"}`).refused(413)
			c.GET("/no/such/thing").refused(404)
			c.me().do("PUT", "/nodes", "{}").refused(405)
		}},
		{"identifiers", "names like reserved words or UIDs are refused; MACs are found in any case", func(c *check) {
			for _, name := range []string{"meta", strings.Repeat("a", 32)} {
				c.POST("/attribs", `{"name":"`+name+`"}`).refused(400, "name")
			}
			c.POST("/bootconfigs", `{"name":"errors"}`).refused(400, "name")
			c.fresh("nodes", `{"mac":"AA:BB:CC:00:01:02"}`)
			c.GET("/node/aa:bb:cc:00:01:02").has("mac", `"aa:bb:cc:00:01:02"`)
			c.GET("/node/AA-BB-CC-00-01-02").has("mac", `"aa:bb:cc:00:01:02"`)
		}},
		{"node fields", "types are four; names and addresses are the head's; an index may be chosen once", func(c *check) {
			c.takes("nodes", `{"mac":"52:54:00:aa:00:0`+`1"}`, "type", []string{`"unknown"`, `"compute"`, `"head"`, `"simulated"`}, []string{`"other"`, `5`})
			c.POST("/nodes", `{"mac":"52:54:00:aa:00:02","name":"mine"}`).reasoned(400, "Unhandled parameter(s): name")
			c.POST("/nodes", `{"mac":"52:54:00:aa:00:02","ip":"10.0.0.1"}`).reasoned(400, "Unhandled parameter(s): ip")
			c.POST("/nodes", `{"mac":"52:54:00:aa:00:02","index":77}`).uid()
			c.GET("/node/n77").has("index", `77`)
			c.POST("/nodes", `{"mac":"52:54:00:aa:00:03","index":77}`).refused(409, "77")
		}},
		{"attributes", "are one level deep", func(c *check) {
			c.takes("attribs", `{"name":"deep#"}`, "attributes", []string{`{"a":"b","n":1.5,"t":true}`, `{}`}, []string{`{"a":{"b":1}}`, `{"a":[1]}`, `[]`, `"x"`})
		}},
		{"pool group", "holds for nodes of the pool without groups of their own, over the default group", func(c *check) {
			c.fresh("attribs", `{"name":"of pool","attributes":{"from":"pool","_boot_config":"other"}}`)
			c.fresh("attribs", `{"name":"own","attributes":{"from":"own"}}`)
			c.fresh("namingpools", `{"name":"grouped","pattern":"grouped{}","group":"of pool"}`)
			path := c.fresh("nodes", `{"mac":"52:54:00:aa:01:01","naming_pool":"grouped"}`)
			c.GET(path + "/attributes").is(`{"from":"pool","_boot_config":"other"}`)
			c.PATCH(path, `{"groups":["own"]}`).done()
			c.GET(path + "/attributes").is(`{"from":"own","_boot_config":"DefaultBoot"}`)
		}},
		{"roles", "a list or words with commas; read as a list", func(c *check) {
			path := c.fresh("admins", `{"name":"roles#","roles":"role.authuser, role.fulladmin"}`)
			c.GET(path).has("roles", `["role.authuser","role.fulladmin"]`)
			c.PATCH(path, `{"roles":[]}`).done()
			c.GET(path).has("roles", `[]`)
		}},
		{"boot styles", "are seven", func(c *check) {
			c.takes("bootconfigs", `{"name":"style#"}`, "boot_style", []string{`"rwram"`, `"roram"`, `"iscsi"`, `"next"`, `"disked"`, `"sanboot"`, `"live"`}, []string{`"floppy"`, `7`})
		}},
		{"frozen image", "refuses every change but thawing", func(c *check) {
			path := c.fresh("images", `{"name":"ice#","frozen":true}`)
			const why = "Cannot modify frozen image."
			c.PATCH(path, `{"description":"x"}`).reasoned(409, why)
			c.PATCH(path, `{"frozen":false,"description":"x"}`).reasoned(409, why)
			c.PUT(path, `{"name":"ice"}`).reasoned(409, why)
			c.DELETE(path).reasoned(409, why)
			c.PUT(path+"/content", upload).reasoned(409, why)
			c.PATCH(path, `{"frozen":false}`).done()
			c.DELETE(path).done()
		}},
		{"naming patterns", "letters, one pair of braces that is empty or :0Nd, letters", func(c *check) {
			c.takes("namingpools", `{"name":"pattern#","pattern":"p{}"}`, "pattern", []string{`"x{}"`, `"gpu{:03d}"`, `"a{}b"`}, []string{`"x"`, `"{}"`, `"x{}{}"`, `"x{:3d}"`, `"x{y}"`, `""`})
		}},
		{"pool addresses", "begin at ip_base or at an offset, never both", func(c *check) {
			path := c.fresh("namingpools", `{"name":"both#","pattern":"both{}","ip_base":"10.1.1.1"}`)
			c.PATCH(path, `{"ip_offset":5}`).refused(400, "ip_offset")
			c.POST("/namingpools", `{"name":"both","pattern":"both2{}","ip_base":"10.1.1.1","ip_offset":5}`).refused(400, "ip_offset")
		}},
		{"networks", "need first_ip, ip_count and mask_bits, which fit together", func(c *check) {
			c.POST("/nets", `{"first_ip":"10.0.0.1","ip_count":1000,"mask_bits":24}`).refused(400, "ip_count")
			c.POST("/nets", `{"first_ip":"10.0.0.1","ip_count":"10","mask_bits":24}`).refused(400, "ip_count")
			c.POST("/nets", `{"first_ip":"10.0.0.1","ip_count":10,"mask_bits":33}`).refused(400, "mask_bits")
			c.POST("/nets", `{}`).refused(400, "first_ip", "ip_count", "mask_bits")
		}},
		{"host types", "follow from what is given, and must fit it", func(c *check) {
			c.GET(c.fresh("hostnames", `{"name":"four#","ip":"10.1.1.1"}`)).has("type", `"arec"`)
			c.GET(c.fresh("hostnames", `{"name":"six#","ip":"fd00::1"}`)).has("type", `"aaaarec"`)
			c.GET(c.fresh("hostnames", `{"name":"service#","target":"db.example.org","port":5432}`)).has("type", `"srvrec"`, "port", `5432`)
			c.POST("/hostnames", `{"name":"nothing"}`).refused(400)
			c.POST("/hostnames", `{"name":"wrong","type":"arec","ip":"fd00::1"}`).refused(400)
			c.POST("/hostnames", `{"name":"wrong","type":"aaaarec","ip":"10.1.1.1"}`).refused(400)
			c.POST("/hostnames", `{"name":"wrong","type":"srvrec","target":"db"}`).refused(400, "port")
			c.POST("/hostnames", `{"name":"wrong","type":"mx","ip":"10.1.1.1"}`).refused(400, "type")
			path := c.fresh("hostnames", `{"name":"order#","type":"srvrec","target":"db","port":1,"priority":7,"weight":3,"proto":"udp"}`)
			c.GET(path).has("priority", `7`, "weight", `3`, "proto", `"udp"`)
			c.PATCH(path, `{"proto":"sctp"}`).refused(400, "proto")
		}},
		{"hosts of one name", "differ in their type; the oldest is read by it, and none is changed by it", func(c *check) {
			four := c.fresh("hostnames", `{"name":"dual","ip":"10.1.1.30"}`)
			six := c.fresh("hostnames", `{"name":"dual","ip":"fd00::30"}`)
			c.GET("/hostname/dual").has("uid", show(identifier(four)))
			c.POST("/hostnames", `{"name":"dual","ip":"10.1.1.31"}`).reasoned(409, "Hostname with name=dual already exists.")
			c.DELETE("/hostname/dual").refused(409, identifier(four), identifier(six))
			c.DELETE(four).done()
			c.DELETE("/hostname/dual").done()
			c.GET(six).refused(404)
		}},
		{"the words for hosts", "name the same objects", func(c *check) {
			path := c.fresh("hosts", `{"name":"one-of-both","ip":"10.1.1.9"}`)
			c.GET("/hostname/one-of-both").is(show(c.GET(path).object()))
			c.PATCH("/host/one-of-both", `{"description":"x"}`).done()
			c.GET("/hostname/one-of-both").has("description", `"x"`)
		}},
		{"git sources", "url and upstream exclude each other, across changes too", func(c *check) {
			c.POST("/gitrepos", `{"name":"both","url":"http://127.0.0.1:1/a.git","upstream":"http://127.0.0.1:1/b.git"}`).refused(400, "upstream")
			path := c.fresh("gitrepos", `{"name":"one#","upstream":"http://127.0.0.1:1/b.git"}`)
			c.PATCH(path, `{"url":"http://127.0.0.1:1/a.git"}`).refused(400, "url")
			c.PATCH(path, `{"url":"http://127.0.0.1:1/a.git","upstream":null}`).done()
		}},
		{"sync periods", "are seconds, or minutes, hours, days with their letter", func(c *check) {
			c.takes("gitrepos", `{"name":"period#"}`, "sync_period", []string{`600`, `"10m"`, `"2h"`, `"1d"`, `"90s"`}, []string{`"1h30m"`, `"soon"`, `-5`, `true`, `"1w2"`})
			path := c.fresh("gitrepos", `{"name":"period#","sync_period":"2h"}`)
			c.GET(path).has("sync_period", `"2h"`)
			c.PATCH(path, `{"sync_period":null}`).done()
			c.GET(path).lacks("sync_period")
			c.GET(c.fresh("gitrepos", `{"name":"period#"}`)).lacks("sync_period")
		}},
		{"packaging", "is rpm, deb or apk", func(c *check) {
			c.takes("distros", `{"name":"pack#"}`, "packaging", []string{`"rpm"`, `"deb"`, `"apk"`}, []string{`"zip"`})
		}},
		{"what cannot be replaced", "heads and the cluster refuse PUT with 405", func(c *check) {
			c.PUT("/head/x", `{}`).refused(405)
			c.PUT("/cluster", `{}`).refused(405)
		}},
		{"references", "are taken as UID or name, and deleting what lists name cleans the lists", func(c *check) {
			group := c.fresh("attribs", `{"name":"gone"}`)
			path := c.fresh("nodes", `{"mac":"52:54:00:aa:02:01","groups":["gone"]}`)
			c.DELETE(group).done()
			c.GET(path).has("groups", `[]`)
			image := c.fresh("images", `{"name":"by uid"}`)
			boot := c.fresh("bootconfigs", `{"name":"refers#","image":"`+identifier(image)+`"}`)
			c.GET(boot).has("image", `"by uid"`)
			c.PATCH(boot, `{"image":"nobody"}`).refused(400, "nobody")
			c.DELETE(image).done()
			c.GET(boot+"/errors").refused(0, "image")
		}},
		{"power templates", "look in attributes, then status, then hardware", func(c *check) {
			path := c.fresh("nodes", `{"mac":"52:54:00:aa:03:01","power_uri":"ipmi://<user>:<slot>@<board>/x"}`)
			uid := identifier(path)
			c.POST("/node/putstatus", `{"uid":"`+uid+`","status":{"slot":"s","user":"status"},"hardware":{"board":"10.1.1.1","slot":"hardware"}}`).done()
			c.PATCH(path+"/attributes", `{"user":"a"}`).done()
			c.GET("/node/"+uid+"/power_uri").has("unparsed", `"ipmi://a:s@10.1.1.1/x"`)
		}},
		{"selectors", "long and short forms; a missing value matches nothing; errors name the place", func(c *check) {
			for selector, parsed := range map[string]string{
				`a[x] == 1 && s[y] != "z"`:            `((attributes["x"] == 1) and (status["y"] != "z"))`,
				`attribute[x]==1 or node[index] > 10`: `((attributes["x"] == 1) or (node["index"] > 10))`,
				`!up || %group`:                       `((not (status["state"] == "up")) or %group)`,
			} {
				c.GET(c.fresh("dyngroups", `{"name":"dyn#","selector":`+show(selector)+`}`)).has("parsed", show(parsed), "selector", show(selector))
			}
			c.GET(c.fresh("dyngroups", `{"name":"dyn#","selector":"a[nowhere] != 1"}`) + "/nodes").is(`[]`)
			c.POST("/dyngroups", `{"name":"wrong","selector":"a[x] == 1 and"}`).refused(400, "selector")
		}},
	}
}
