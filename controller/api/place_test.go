package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/naming"
)

// headAddr belongs to the head in these tests.
const headAddr = "10.0.0.12"

func startPlaced(tb testing.TB) *apitest.Head {
	return apitest.Start(tb, apitest.Options{
		Taken: func(addr string) bool { return addr == headAddr },
		Routes: func(h *apitest.Head) [][]api.Route {
			return [][]api.Route{(&naming.Naming{Objects: h.Registry}).Routes()}
		},
	})
}

// addresses gives name=address of all nodes, in the order of their creation.
func addresses(h *apitest.Head) string {
	nodes := h.List("nodes")
	var out []string
	for i := range 1000 {
		for _, n := range nodes {
			if n["mac"] == mac(i) {
				out = append(out, fmt.Sprintf("%v=%v", n["name"], n["ip"]))
			}
		}
	}
	return strings.ReplaceAll(strings.Join(out, " "), "<nil>", "-")
}

func mac(i int) string { return fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&255) }

// TestPlaces plays small stories. A line is a request, or "node" with what
// is sent besides the MAC; after "!" it must be refused with that word in the
// reason, and after "=" stand the nodes there are then.
func TestPlaces(t *testing.T) {
	const net = `POST /nets {"name":"lan","first_ip":"10.0.0.10","ip_count":100,"mask_bits":24}`
	for name, story := range map[string]string{
		"before any network": `
			node
			node
			= n0=- n1=-
			` + net + `
			= n0=10.0.0.10 n1=10.0.0.11
			node
			= n0=10.0.0.10 n1=10.0.0.11 n2=10.0.0.13`, // .12 is the head's
		"a small network for many nodes": `
			node
			node
			node
			POST /nets {"name":"lan","first_ip":"10.0.0.10","ip_count":2,"mask_bits":24}
			= n0=10.0.0.10 n1=10.0.0.11 n2=-
			node ! no free address
			PATCH /net/lan {"ip_count":5}
			= n0=10.0.0.10 n1=10.0.0.11 n2=10.0.0.13
			PATCH /net/lan {"ip_count":3} ! no free address
			= n0=10.0.0.10 n1=10.0.0.11 n2=10.0.0.13`,
		"first_index": `
			POST /nets {"name":"lan","first_ip":"10.0.0.20","ip_count":10,"mask_bits":24,"first_index":3}
			node {"index":3}
			node {"index":5}
			node
			= n3=10.0.0.20 n5=10.0.0.22 n0=10.0.0.21
			PATCH /net/lan {"first_index":0}
			= n3=10.0.0.23 n5=10.0.0.25 n0=10.0.0.20`,
		"router and edges": `
			POST /nets {"name":"lan","first_ip":"10.0.0.0","ip_count":8,"mask_bits":29,"router_ip":"10.0.0.1","gateway_ip":"10.0.0.2"}
			node
			node
			node
			node
			= n0=10.0.0.3 n1=10.0.0.4 n2=10.0.0.5 n3=10.0.0.6
			node ! no free address
			PATCH /net/lan {"router_ip":"10.0.0.3"}
			= n0=10.0.0.1 n1=10.0.0.4 n2=10.0.0.5 n3=10.0.0.6
			PATCH /net/lan {"gateway_ip":"10.0.0.6"}
			= n0=10.0.0.1 n1=10.0.0.4 n2=10.0.0.5 n3=10.0.0.2`,
		"indices": net + `
			node {"index":2}
			node {"index":2} ! Node with index=2 already exists.
			node
			node
			node
			= n2=10.0.0.13 n0=10.0.0.10 n1=10.0.0.11 n3=10.0.0.14
			DELETE /node/n1
			DELETE /node/n0
			node
			node
			node
			= n2=10.0.0.13 n3=10.0.0.14 n0=10.0.0.10 n1=10.0.0.11 n4=10.0.0.15
			PATCH /node/n3 {"index":7} ! Unhandled parameter(s): index
			node {"index":-1} ! index
			node {"index":"1"} ! index
			node {"name":"x"} ! Unhandled parameter(s): name
			node {"ip":"10.0.0.50"} ! Unhandled parameter(s): ip`,
		"moved network": net + `
			node
			node
			node
			PATCH /net/lan {"first_ip":"10.1.0.10"}
			= n0=10.1.0.10 n1=10.1.0.11 n2=10.1.0.12
			PATCH /net/lan {"first_ip":"10.0.0.11"}
			= n0=10.0.0.11 n1=10.0.0.15 n2=10.0.0.13
			PATCH /net/lan {"description":"nothing moves"}
			= n0=10.0.0.11 n1=10.0.0.15 n2=10.0.0.13`,
		"deleted network": net + `
			node
			POST /nets {"name":"second","first_ip":"10.2.0.1","ip_count":10,"mask_bits":24}
			DELETE /net/lan
			= n0=10.2.0.1
			DELETE /net/second
			= n0=-
			` + net + `
			= n0=10.0.0.10`,
		"the default is the oldest": net + `
			POST /nets {"name":"second","first_ip":"10.2.0.1","ip_count":10,"mask_bits":24}
			node
			= n0=10.0.0.10`,
		"pools": net + `
			POST /namingpools {"name":"gpu","pattern":"gpu{:03d}","first_index":1}
			POST /namingpools {"name":"base","pattern":"b{}","ip_base":"10.0.0.200"}
			POST /namingpools {"name":"offset","pattern":"o{}x","ip_offset":50,"first_index":5}
			node
			node {"naming_pool":"gpu"}
			node {"naming_pool":"gpu"}
			node {"naming_pool":"base"}
			node {"naming_pool":"base"}
			node {"naming_pool":"offset"}
			node {"naming_pool":"offset"}
			= n0=10.0.0.10 gpu001=10.0.0.11 gpu002=10.0.0.13 b0=10.0.0.200 b1=10.0.0.201 o5x=10.0.0.60 o6x=10.0.0.61
			PATCH /node/n0 {"naming_pool":"base"}
			PATCH /node/gpu001 {"naming_pool":null}
			node {"naming_pool":"gpu"}
			= b2=10.0.0.202 n0=10.0.0.10 gpu002=10.0.0.13 b0=10.0.0.200 b1=10.0.0.201 o5x=10.0.0.60 o6x=10.0.0.61 gpu001=10.0.0.11
			PATCH /net/lan {"first_ip":"10.0.0.20"}
			= b2=10.0.0.202 n0=10.0.0.20 gpu002=10.0.0.22 b0=10.0.0.200 b1=10.0.0.201 o5x=10.0.0.70 o6x=10.0.0.71 gpu001=10.0.0.21`,
		"a pool whose address the node has": net + `
			node
			POST /namingpools {"name":"same","pattern":"s{}","ip_base":"10.0.0.10"}
			PATCH /node/n0 {"naming_pool":"same"}
			= s0=10.0.0.10`,
		"addresses that a pool cannot give": net + `
			POST /namingpools {"name":"head","pattern":"h{}","ip_base":"10.0.0.12"}
			POST /namingpools {"name":"far","pattern":"f{}","ip_base":"10.9.0.1"}
			POST /namingpools {"name":"end","pattern":"e{}","ip_base":"10.0.0.254"}
			POST /namingpools {"name":"both","pattern":"z{}","ip_base":"10.0.0.1","ip_offset":1} ! ip_offset
			node {"naming_pool":"head"} ! 10.0.0.12
			node {"naming_pool":"far"} ! not in the network
			node {"naming_pool":"end"}
			node {"naming_pool":"end"} ! 10.0.0.255
			= e0=10.0.0.254`,
		"a pool's own network and parent": net + `
			POST /nets {"name":"fast","first_ip":"10.5.0.1","ip_count":100,"mask_bits":24,"domain":"fast.example"}
			POST /namingpools {"name":"parent","pattern":"p{}","network":"fast"}
			POST /namingpools {"name":"child","pattern":"c{}","parent":"parent"}
			POST /namingpools {"name":"grandchild","pattern":"g{}","parent":"child","ip_offset":50}
			PATCH /namingpool/parent {"parent":"grandchild"} ! ancestor
			PATCH /namingpool/parent {"parent":"parent"} ! ancestor
			node {"naming_pool":"child"}
			node {"naming_pool":"grandchild"}
			node
			= c0=10.5.0.1 g0=10.5.0.51 n0=10.0.0.10`,
		"patterns that collide": net + `
			POST /namingpools {"name":"same","pattern":"n{}"}
			node
			node {"naming_pool":"same"}
			node
			= n0=10.0.0.10 n1=10.0.0.11 n2=10.0.0.13
			node {"naming_pool":"same","index":0} ! index=0 already exists`,
		"renaming": net + `
			POST /namingpools {"name":"p","pattern":"a{}"}
			node {"naming_pool":"p"}
			node {"naming_pool":"p"}
			node
			PATCH /namingpool/p {"pattern":"a{:02d}"}
			= a0=10.0.0.10 a1=10.0.0.11 n0=10.0.0.13
			PUT /namingpool/p/push
			= a00=10.0.0.10 a01=10.0.0.11 n0=10.0.0.13
			PATCH /namingpool/p {"pattern":"n{}"}
			PUT /namingpool/p/push ! Node with name=n0 already exists.
			= a00=10.0.0.10 a01=10.0.0.11 n0=10.0.0.13
			PUT /namingpool/nobody/push ! No namingpool found for ID=nobody`,
		"a pool's first index lowered": net + `
			POST /namingpools {"name":"p","pattern":"a{}","first_index":5}
			node {"naming_pool":"p"}
			PATCH /namingpool/p {"first_index":4}
			node {"naming_pool":"p"}
			node {"naming_pool":"p"}
			= a5=10.0.0.15 a4=10.0.0.14 a6=10.0.0.16`,
		"the cluster's pool": net + `
			POST /namingpools {"name":"p","pattern":"a{}"}
			node
			PATCH /cluster {"naming":"p"}
			node
			PATCH /node/n0 {"description":"it stays"}
			PATCH /node/a0 {"naming_pool":null}
			PUT /node/a0 {"mac":"` + mac(2) + `"}
			= n0=10.0.0.10 a0=10.0.0.11`,
		"version 6": `
			POST /nets {"name":"six","first_ip":"fd00::ffff:fff0","ip_count":100,"mask_bits":64}
			node {"index":20}
			= n20=fd00::1:0:4
			POST /nets {"first_ip":"10.0.0.250","ip_count":7,"mask_bits":24} ! ip_count
			POST /nets {"first_ip":"10.0.0.1","ip_count":1,"mask_bits":33} ! mask_bits
			POST /nets {"first_ip":"255.255.255.250","ip_count":10,"mask_bits":8} ! ip_count`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := startPlaced(t)
			nodes := 0
			for _, line := range strings.Split(strings.TrimSpace(story), "\n") {
				line = strings.TrimSpace(line)
				if expected, ok := strings.CutPrefix(line, "= "); ok {
					if got := addresses(h); got != expected {
						t.Fatalf("got  %s\nwant %s", got, expected)
					}
					continue
				}
				request, reason, refused := strings.Cut(line, " ! ")
				method, path, body := "POST", "/nodes", ""
				if more, ok := strings.CutPrefix(request, "node"); ok {
					nodes++
					body = fmt.Sprintf(`{"mac":%q,%s`, mac(nodes), strings.TrimPrefix(strings.TrimSpace(more+" }"), "{"))
					body = strings.Replace(strings.Replace(body, ",}", "}", 1), "} }", "}", 1)
				} else {
					parts := append(strings.SplitN(request, " ", 3), "")
					method, path, body = parts[0], parts[1], parts[2]
				}
				if !refused {
					h.OK(method, path, body)
				} else if got := h.Refused(method, path, body); !strings.Contains(got, reason) {
					t.Errorf("%s: refused with %q", line, got)
				}
			}
		})
	}
}

func TestManyNodesAtOnce(t *testing.T) {
	h := startPlaced(t)
	const n = 200
	h.Create("nets", `{"first_ip":"10.0.0.10","ip_count":1000,"mask_bits":16}`)
	together(n, func(i int) { h.OK("POST", "/nodes", apitest.Map{"mac": mac(i)}) })
	seen := map[string]int{}
	for _, node := range h.List("nodes") {
		for _, key := range []string{"index", "name", "ip"} {
			seen[key+fmt.Sprint(node[key])]++
		}
		if node["name"] != "n"+node["index"].(json.Number).String() {
			t.Errorf("%v has index %v", node["name"], node["index"])
		}
	}
	if len(seen) != 3*n || seen["ip"+headAddr] != 0 {
		t.Errorf("%d different indices, names and addresses for %d nodes", len(seen), n)
	}
	// All of them gone at once, the numbers are given again from the beginning.
	together(n, func(i int) { h.OK("DELETE", "/node/"+mac(i), nil) })
	h.Create("nodes", apitest.Map{"mac": mac(1)})
	if got := addresses(h); got != "n0=10.0.0.10" {
		t.Errorf("then there is %s", got)
	}
}

func together(n int, fn func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { fn(i) })
	}
	all.Wait()
}

func TestOneMACOnlyOnce(t *testing.T) {
	h := startPlaced(t)
	for round := range 20 {
		statuses := make([]int, 2)
		together(2, func(i int) { statuses[i] = h.Do("POST", "/nodes", apitest.Map{"mac": mac(round)}).Status })
		if statuses[0]+statuses[1] != http.StatusOK+http.StatusConflict {
			t.Errorf("the answers are %v", statuses)
		}
	}
	if n := len(h.List("nodes")); n != 20 {
		t.Errorf("there are %d nodes", n)
	}
}

func TestExhaustedNetwork(t *testing.T) {
	h := startPlaced(t)
	h.Create("nets", `{"name":"small","first_ip":"10.0.0.10","ip_count":5,"mask_bits":24}`)
	refused := make([]string, 20)
	together(len(refused), func(i int) {
		if a := h.Do("POST", "/nodes", apitest.Map{"mac": mac(i)}); a.Status != http.StatusOK {
			refused[i] = fmt.Sprint(a.Status, " ", a.Reason)
		}
	})
	count := 0
	for _, r := range refused {
		if r != "" {
			want(t, r, "409 The network small has no free address: all 5 from 10.0.0.10 to 10.0.0.14 are in use. Raise its ip_count, or delete nodes.")
			count++
		}
	}
	if nodes := len(h.List("nodes")); nodes != 4 || count != 16 {
		t.Errorf("%d nodes were made, %d refused", nodes, count)
	}
}

// TestPlacesHold changes nodes, pools and networks at random and looks whether
// what must always hold does.
func TestPlacesHold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := startPlaced(t)
		defer h.Stop()
		next := 0
		pick := func(plural string) string {
			uids := []string{""}
			for uid := range h.List(plural) {
				uids = append(uids, uid)
			}
			// The list has no order of its own; the choice only has to be some.
			return uids[rapid.IntRange(0, len(uids)-1).Draw(rt, plural)]
		}
		try := func(method, path string, body any) {
			if a := h.Do(method, path, body); a.Status != 200 && a.Status != 409 && a.Status != 400 {
				rt.Fatalf("%s %s %v: %d %s", method, path, body, a.Status, a.Raw)
			}
		}
		network := func() apitest.Map {
			return apitest.Map{
				"first_ip": fmt.Sprintf("10.0.%d.%d", rapid.IntRange(0, 2).Draw(rt, "third"), rapid.IntRange(8, 14).Draw(rt, "fourth")),
				"ip_count": rapid.IntRange(1, 6).Draw(rt, "count"), "mask_bits": 24, "first_index": rapid.IntRange(0, 3).Draw(rt, "first"),
				"router_ip": fmt.Sprintf("10.0.0.%d", rapid.IntRange(8, 14).Draw(rt, "router")),
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"create node": func(*rapid.T) {
				next++
				body := apitest.Map{"mac": mac(next), "naming_pool": pick("namingpools")}
				if rapid.Bool().Draw(rt, "choose") {
					body["index"] = rapid.IntRange(0, 9).Draw(rt, "index")
				}
				try("POST", "/nodes", body)
			},
			"delete node": func(*rapid.T) { tryIf(try, "DELETE", "/node/", pick("nodes"), nil) },
			"move node": func(*rapid.T) {
				tryIf(try, "PATCH", "/node/", pick("nodes"), apitest.Map{"naming_pool": pick("namingpools")})
			},
			"create net": func(*rapid.T) { try("POST", "/nets", network()) },
			"change net": func(*rapid.T) { tryIf(try, "PATCH", "/net/", pick("nets"), network()) },
			"delete net": func(*rapid.T) { tryIf(try, "DELETE", "/net/", pick("nets"), nil) },
			"create pool": func(*rapid.T) {
				next++
				try("POST", "/namingpools", apitest.Map{"name": fmt.Sprintf("p%d", next), "first_index": rapid.IntRange(0, 3).Draw(rt, "first"),
					"pattern": rapid.SampledFrom([]string{"n{}", "n{:02d}", "g{}"}).Draw(rt, "pattern"), "network": pick("nets")})
			},
			"change pool": func(*rapid.T) {
				tryIf(try, "PATCH", "/namingpool/", pick("namingpools"), apitest.Map{"first_index": rapid.IntRange(0, 3).Draw(rt, "first"),
					"pattern": rapid.SampledFrom([]string{"n{}", "n{:02d}", "g{}"}).Draw(rt, "pattern")})
			},
			"push names":  func(*rapid.T) { tryIf(try, "PUT", "/namingpool/", pick("namingpools"), nil) },
			"delete pool": func(*rapid.T) { tryIf(try, "DELETE", "/namingpool/", pick("namingpools"), nil) },
			"":            func(rt *rapid.T) { placesHold(rt, h) },
		})
	})
}

func tryIf(try func(string, string, any), method, class, uid string, body any) {
	if uid == "" {
		return
	}
	if method == "PUT" {
		uid += "/push"
	}
	try(method, class+uid, body)
}

func placesHold(t *rapid.T, h *apitest.Head) {
	nets := h.List("nets")
	seen := map[string]any{}
	once := func(what string, node any) {
		if other := seen[what]; other != nil {
			t.Fatalf("%v and %v both have %s", other, node, what)
		}
		seen[what] = node
	}
	for _, n := range h.List("nodes") {
		once(fmt.Sprintf("name %v", n["name"]), n)
		once(fmt.Sprintf("index %v in %v", n["index"], n["naming_pool"]), n)
		text, ok := n["ip"].(string)
		if !ok {
			continue
		}
		once("address "+text, n)
		inside := false
		for _, net := range nets {
			first := netip.MustParseAddr(net["first_ip"].(string))
			a := netip.MustParseAddr(text)
			count, _ := net["ip_count"].(json.Number).Int64()
			at := int64(a.As4()[3]) - int64(first.As4()[3])
			inside = inside || a.As4()[2] == first.As4()[2] && at >= 0 && at < count && net["router_ip"] != text
		}
		if !inside || text == headAddr {
			t.Fatalf("%s of %v is in none of %v", text, n["name"], nets)
		}
	}
}
