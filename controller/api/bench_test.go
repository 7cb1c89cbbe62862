package api_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"muster/controller/api"
	"muster/controller/api/apitest"
)

// clients is how many ask at once.
const clients = 64

// cluster is a head with as many nodes as a large site has.
func cluster(b *testing.B, nodes int) *apitest.Head {
	h := start(b)
	h.Create("nets", `{"first_ip":"10.0.0.1","ip_count":60000,"mask_bits":16}`)
	h.Create("attribs", `{"name":"g","attributes":{"_boot_config":"DefaultBoot"}}`)
	h.OK("PATCH", "/cluster", `{"default_group":"g"}`)
	var next atomic.Int64
	together(clients, func(int) {
		for {
			i := next.Add(1)
			if i > int64(nodes) {
				return
			}
			if _, err := h.Registry.Create(context.Background(), author, "node", input(fmt.Sprintf(`{"mac":"52:54:00:%02x:%02x:%02x"}`, i>>16, i>>8&255, i&255))); err != nil {
				b.Error(err)
				return
			}
		}
	})
	return h
}

func requests(b *testing.B, h *apitest.Head, method string, body func(i int64) string, path func(i int64) string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients, DialContext: (&net.Dialer{}).DialContext}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	b.ResetTimer()
	together(clients, func(int) {
		for {
			i := next.Add(1)
			if i > int64(b.N) {
				return
			}
			req, err := http.NewRequest(method, h.Server.URL+api.Root+path(i), strings.NewReader(body(i)))
			if err != nil {
				b.Error(err)
				return
			}
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

const many = 1000

func node(i int64) string { return fmt.Sprintf("/node/n%d", i%many) }

func BenchmarkGetNode(b *testing.B) {
	h := cluster(b, many)
	requests(b, h, "GET", func(int64) string { return "" }, node)
}

func BenchmarkPatchNode(b *testing.B) {
	h := cluster(b, many)
	requests(b, h, "PATCH", func(i int64) string { return fmt.Sprintf(`{"description":"%d"}`, i) }, node)
}

func BenchmarkListNodes(b *testing.B) {
	h := cluster(b, many)
	requests(b, h, "GET", func(int64) string { return "" }, func(int64) string { return "/nodes" })
}

// BenchmarkGetNodeAlone is the same without a network and clients in the same
// process: what the API itself takes.
func BenchmarkGetNodeAlone(b *testing.B) {
	h := cluster(b, many)
	req, err := http.NewRequest("GET", api.Root+node(7), nil)
	if err != nil {
		b.Fatal(err)
	}
	req.RemoteAddr = "127.0.0.1:1"
	b.ReportAllocs()
	for b.Loop() {
		h.Server.Config.Handler.ServeHTTP(discard{}, req)
	}
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
