package conformance

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strings"
)

func clusterSetup(c *check) {
	c.POST("/nets", `{"first_ip":"127.70.0.10","ip_count":20,"mask_bits":24}`).uid()
	c.POST("/nodes", `{"mac":"52:54:00:00:93:01"}`).uid()
	c.PATCH("/admin/"+c.operator, `{"keys":[`+show(keyOne)+`]}`).done()
}

// thisHead is the UID of the one there is.
func (c *check) thisHead() string {
	uid, _ := c.GET("/cluster/database").object()["uid"].(string)
	_, registered := c.GET("/heads").object()[uid]
	c.must(registered, "this head, %q, is not among the heads", uid)
	return uid
}

// filled says that data is there and not empty.
func (a *answer) filled() {
	if text := string(a.ok().data); slices.Contains([]string{"", "null", `""`}, text) {
		a.fail("%s: no data: %s", a.call, a.raw)
	}
}

func clusterRows() []row {
	return []row{
		{"GET", "/cluster", token, "settings, the time, how it is watched, who may log in, image formats, plugins", func(c *check) {
			o := c.GET("/cluster").object()
			for _, part := range []string{"time", "monitoring", "auth", "format", "plugin"} {
				if !slices.ContainsFunc(keysOf(o), func(k string) bool { return strings.Contains(k, part) }) {
					c.fail("nothing about %s among %v", part, keysOf(o))
				}
			}
		}},
		{"PATCH", "/cluster", token, "overwrites what is sent; names are taken, other keys refused", func(c *check) {
			c.POST("/attribs", `{"name":"everybody","attributes":{"all":1}}`).uid()
			c.POST("/namingpools", `{"name":"standard","pattern":"s{}"}`).uid()
			c.POST("/distros", `{"name":"Debian"}`).uid()
			c.PATCH("/cluster", `{"default_group":"everybody","naming":"standard","accept_new_nodes":true,"default_distro":"Debian","influx_token":"t","cluster_name":"name","cluster_id":"id","auth_config":{"x":1}}`).done()
			c.GET("/cluster").has("accept_new_nodes", `true`, "cluster_name", `"name"`, "cluster_id", `"id"`)
			c.GET("/node/n0/attributes").is(`{"all":1}`)
			c.GET("/node/"+c.POST("/nodes", `{"mac":"52:54:00:00:93:02"}`).uid()).has("name", `"s0"`)
			c.PATCH("/cluster", `{"cluster_name":"other","colour":"red"}`).reasoned(400, "Unhandled parameter(s): colour")
			c.GET("/cluster").has("cluster_name", `"name"`)
			c.PATCH("/cluster", `{"default_group":"DefaultAttribs","naming":null}`).done()
			c.PUT("/cluster", `{}`).refused(405)
		}},
		{"GET", "/cluster/database", public, "what the database is", func(c *check) { c.anybody().GET("/cluster/database").object() }},
		{"GET", "/cluster/summary", token, "the UIDs of all objects, by class", func(c *check) {
			o := c.GET("/cluster/summary").object()
			for _, plural := range []string{"nodes", "attribs", "admins", "bootconfigs", "images", "nets", "hostnames", "dyngroups", "namingpools", "heads", "repos", "distros", "gitrepos"} {
				c.same(o[plural], show(append([]string{}, keysOf(c.GET("/"+plural).object())...)))
			}
		}},
		{"GET", "/cluster/usage", token, "node-hours by state, or what is missing for them", func(c *check) {
			c.PUT("/cluster/accountant", `{"type":"none"}`).done()
			c.GET("/cluster/usage").refused(409, "accounting")
			c.PUT("/cluster/accountant", `{"type":"head"}`).done()
			hours, _ := c.GET("/cluster/usage").has("accountant", `"head"`)["node_hours"].(map[string]any)
			total, isNumber := hours["total"].(float64)
			for state, n := range hours {
				if h, _ := n.(float64); state != "total" {
					total -= h
				}
			}
			if !isNumber || math.Abs(total) > 1e-6 {
				c.fail("the node-hours of the states are not the total: %v", hours)
			}
			c.GET("/cluster/usage?from=yesterday").refused(400, "yesterday")
		}},
		{"GET", "/cluster/time", public, "the head's clock", func(c *check) {
			c.anybody().GET("/cluster/time").filled()
		}},
		{"GET", "/cluster/accountant", token, "the accounting's settings", func(c *check) { c.GET("/cluster/accountant").ok() }},
		{"PUT", "/cluster/accountant", token, "sets them; they are read back; nonsense is refused", func(c *check) {
			now := c.GET("/cluster/accountant").object()
			c.PUT("/cluster/accountant", show(now)).ok()
			c.same(c.GET("/cluster/accountant").object(), show(now))
			c.PUT("/cluster/accountant", `[]`).refused(400)
			c.PUT("/cluster/accountant", `{"colour":"red"}`).refused(400, "colour")
		}},
		{"GET", "/cluster/head/<UID>", token, "the head, and how it is", func(c *check) {
			uid := c.thisHead()
			c.GET("/cluster/head/"+uid).has("uid", show(uid))
			c.GET("/cluster/head/nobody").reasoned(404, "No head found for ID=nobody")
		}},
		{"GET", "/cluster/head/<UID>/log", token, "its log", func(c *check) {
			c.GET("/cluster/head/" + c.thisHead() + "/log").filled()
			c.GET("/cluster/head/nobody/log").reasoned(404, "No head found for ID=nobody")
		}},
		{"GET", "/cluster/hosts", public, "names and addresses of all nodes", func(c *check) {
			o := c.anybody().GET("/cluster/hosts").object()
			c.same(o["n0"], `"127.70.0.10"`)
		}},
		{"GET", "/cluster/sshkeys", public, "the keys of admins, as authorized_keys has them", func(c *check) {
			if a := c.anybody().GET("/cluster/sshkeys").ok(); !strings.Contains(string(a.data), "AAAAC3NzaC1lZDI1NTE5AAAAIHDGa51ZBbZi97zfZLMXUuSdLFBqxiAnsKZYHDTCKIPo") {
				c.fail("%s: no admin's key in %.300s", a.call, a.data)
			}
		}},
		{"GET", "/cluster/cabundle", public, "the certificates with which the head's own is checked", func(c *check) {
			var pem string
			c.must(json.Unmarshal(c.anybody().GET("/cluster/cabundle").ok().data, &pem) == nil, "no text")
			pool := x509.NewCertPool()
			c.must(pool.AppendCertsFromPEM([]byte(pem)), "no certificate in %.100s", pem)
			u, err := url.Parse(c.HTTPS)
			c.must(err == nil, "%v", err)
			conn, err := tls.DialWithDialer(&net.Dialer{}, "tcp", u.Host, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
			c.must(err == nil, "the head's certificate is not by it: %v", err)
			conn.Close()
		}},
		{"GET", "/cluster/license", token, "under which license it runs", func(c *check) { c.GET("/cluster/license").filled() }},
		{"GET", "/cluster/meta", public, "what there is to set", func(c *check) {
			c.anybody().GET("/cluster/meta").ok().mentions("default_group", "naming", "accept_new_nodes", "default_distro", "influx_token", "cluster_name", "cluster_id", "auth_config")
		}},
	}
}

const services = "/head/services"

func headRows() []row {
	return []row{
		{"GET", "/heads/down", token, "the heads that do not answer", func(c *check) {
			c.without(c.GET("/heads/down"), c.thisHead())
			dead := c.deadHead()
			a := c.GET("/heads/down")
			c.without(a, c.thisHead())
			a.mentions(dead)
			c.DELETE("/head/" + dead).done()
		}},
		{"DELETE", "/heads/down", token, "removes those, and says which", func(c *check) {
			uid, dead := c.thisHead(), c.deadHead()
			a := c.DELETE("/heads/down")
			c.without(a, uid)
			a.mentions(dead)
			c.GET("/head/" + uid).ok()
			c.GET("/head/"+dead).reasoned(404, "No head found for ID="+dead)
			c.GET("/heads/down").is(`[]`)
		}},
		{"GET", services, fromHead, "the head's services, each up or down", func(c *check) {
			a := c.anybody().GET(services).ok()
			if text := string(a.data); !strings.Contains(text, `"up"`) {
				c.fail("%s: nothing is up: %.300s", a.call, text)
			}
		}},
		{"POST", services, fromHead, "acts on services, in order; nothing happens when one word is wrong", func(c *check) {
			c.anybody().POST(services, `{"status":"explode","services":["library"]}`).refused(400, "explode")
			c.anybody().POST(services, `{"status":"stop","services":["no-such-service"]}`).refused(0, "no-such-service")
			c.anybody().POST(services, `{"status":"start"}`).refused(400, "services")
			c.anybody().POST(services, `{"services":["library"]}`).refused(400, "status")
			const door = "login-socket"
			do := func(what string, open bool, shown string) {
				c.anybody().POST(services, `{"status":"`+what+`","services":["`+door+`"]}`).ok()
				conn, err := net.Dial("unix", c.Socket())
				if err == nil {
					conn.Close()
				}
				if (err == nil) != open {
					c.fail("after %s the login socket says: %v", what, err)
				}
				c.same(c.service(door), shown)
			}
			do("stop", false, `["down",true]`)
			c.anybody().POST(services, `{"status":"start,explode","services":["`+door+`"]}`).refused(400, "explode")
			c.anybody().POST(services, `{"status":"start","services":["`+door+`","nothing"]}`).refused(404, "nothing")
			do("stop", false, `["down",true]`)
			do("start", true, `["up",true]`)
			do("stop,start", true, `["up",true]`)
			do("restart", true, `["up",true]`)
			do("reload", true, `["up",true]`)
			do("disable", true, `["up",false]`)
			do("enable", true, `["up",true]`)
		}},
		{"GET", "/head/peerurl", public, "where another head joins", func(c *check) {
			if a := c.anybody().GET("/head/peerurl").ok(); !strings.Contains(string(a.data), "http") {
				c.fail("%s: no URL in %s", a.call, a.data)
			}
		}},
		{"GET", "/head/files/unused", fromHead, "the files that no object names", func(c *check) {
			old := c.outdated("changed")
			c.anybody().GET("/head/files/unused").ok().mentions(old)
			c.same(string(c.GET("/bootconfig/changed/kernel").bytes()), show(upload))
		}},
		{"DELETE", "/head/files/unused", fromHead, "removes those, says which, and no others", func(c *check) {
			old := c.outdated("kept")
			c.anybody().DELETE("/head/files/unused").ok().mentions(old)
			c.anybody().GET("/head/files/unused").is(`[]`)
			c.same(string(c.GET("/bootconfig/kept/kernel").bytes()), show(upload))
		}},
	}
}

// deadHead registers a head that nobody can reach, and gives its UID.
func (c *check) deadHead() string {
	return c.POST("/heads", `{"uid":"`+fmt.Sprintf("%032d", serial.Add(1))+`","ssh_public":`+show(keyOne)+`}`).uid()
}

// service gives a service's status, and whether it is enabled.
func (c *check) service(name string) any {
	for _, s := range c.anybody().GET(services).list() {
		if m, _ := s.(map[string]any); m["name"] == name {
			return []any{m["status"], m["enabled"]}
		}
	}
	return nil
}

// outdated makes a boot configuration and replaces its kernel; it gives the
// digest of the one that is used no more. (An image's last contents stay used, as
// its versions.)
func (c *check) outdated(config string) string {
	old := "the first kernel of " + config
	c.POST("/bootconfigs", `{"name":"`+config+`"}`).uid()
	c.PUT("/bootconfig/"+config+"/kernel", old).done()
	c.PUT("/bootconfig/"+config+"/kernel", upload).done()
	return fmt.Sprintf("%x", sha256.Sum256([]byte(old)))
}

// without says that data does not name this.
func (c *check) without(a *answer, uid string) {
	if strings.Contains(string(a.ok().data), uid) {
		c.fail("%s: %s is up, and in %s", a.call, uid, a.data)
	}
}

func databaseRows() []row {
	return []row{
		{"GET", "/database/clean", token, "what cleaning would do; nothing is done", func(c *check) {
			c.POST("/images", `{"name":"gone"}`).uid()
			c.POST("/bootconfigs", `{"name":"left","image":"gone"}`).uid()
			c.DELETE("/image/gone").done()
			before := c.GET("/cluster/summary").object()
			for range 2 {
				c.GET("/database/clean").ok().mentions("left")
			}
			c.same(c.GET("/cluster/summary").object(), show(before))
		}},
		{"POST", "/database/clean", token, "cleans, and says what was done; objects stay", func(c *check) {
			before := c.GET("/cluster/summary").object()
			c.POST("/database/clean", "").ok().mentions("left")
			c.GET("/database/clean").has("references", `[]`)
			c.GET("/bootconfig/left").lacks("image")
			c.same(c.GET("/cluster/summary").object(), show(before))
		}},
		{"POST", "/database/leave", fromHead, "refused by the only head", func(c *check) {
			c.anybody().POST("/database/leave", "").refused(409, "only head")
			c.GET("/heads").ok()
		}},
	}
}
