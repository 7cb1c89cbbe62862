package app_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"

	"muster/controller/app"
	"muster/controller/app/apptest"
	"muster/shared/wire"
)

// TestMonitoring has a node come up and all who watch see it: Prometheus with a
// token and without, a collector of traces, InfluxDB, and the node its
// attributes.
func TestMonitoring(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	metrics := l.Addr().String()
	l.Close()
	traces, lines := make(chan string, 10), make(chan string, 100)
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/v1/traces" {
			traces <- string(raw)
			return
		}
		select {
		case lines <- r.Header.Get("Authorization"):
		default:
		}
	}))
	defer sink.Close()
	h := apptest.Start(t, func(c *app.Config) {
		c.Metrics, c.OTLP, c.Influx, c.ReportEvery = metrics, sink.URL+"/v1/traces", sink.URL+"/api/v2/write", 1
	})
	h.OK("PATCH", "/cluster", `{"influx_token":"secret"}`)
	h.OK("POST", "/nets", `{"name":"lo","first_ip":"127.90.0.1","ip_count":5,"mask_bits":24}`)
	h.OK("POST", "/nodes", `{"mac":"52:54:00:00:00:01","attributes":{"role":"x"}}`)
	from := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.90.0.1:0"))}
	ws, _, err := (&websocket.Dialer{NetDialContext: from.DialContext}).Dial("ws"+strings.TrimPrefix(h.HTTP, "http")+wire.PathLink, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	defer time.AfterFunc(time.Minute, func() { ws.Close() }).Stop()
	if err := ws.WriteJSON(wire.Hello{Version: wire.Version, InImage: true, BootID: "b"}); err != nil {
		t.Fatal(err)
	}
	var hello wire.Hello
	if err := ws.ReadJSON(&hello); err != nil {
		t.Fatal(err)
	}
	session, err := yamux.Server(wire.Conn(ws), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	attributes := func() string {
		s, err := session.AcceptStream()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Close() }()
		header, err := wire.ReadHeader(s)
		for err == nil && header.Type == wire.StreamOverlay {
			s.Close()
			if s, err = session.AcceptStream(); err == nil {
				header, err = wire.ReadHeader(s)
			}
		}
		if err != nil || header.Attributes == nil {
			t.Fatal(header, err)
		}
		return string(header.Attributes.Values["role"])
	}
	if got := attributes(); got != `"x"` {
		t.Errorf("the node has role %s", got)
	}
	h.OK("PATCH", "/node/n0/attributes", `{"role":"y"}`)
	if got := attributes(); got != `"y"` {
		t.Errorf("after a change the node has role %s", got)
	}
	select {
	case got := <-traces:
		if !strings.Contains(got, "boot n0") || !strings.Contains(got, "testhead") {
			t.Errorf("trace %s", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("no trace came")
	}
	select {
	case got := <-lines:
		if got != "Token secret" {
			t.Errorf("InfluxDB is shown %q", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("no line came")
	}
	ask := func(url, token string) (int, string) {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(raw)
	}
	for path, want := range map[string]string{"/metrics": `muster_nodes{state="up"} 1`, "/metrics/nodes": `muster_node_state{node="n0",state="up"} 1`, "/metrics/targets": `"127.90.0.1:9100"`} {
		if status, text := ask(h.HTTP+path, ""); status != http.StatusUnauthorized {
			t.Errorf("%s without a token: %d %.100s", path, status, text)
		}
		for url, token := range map[string]string{h.HTTP: h.Token(), "http://" + metrics: ""} {
			if status, text := ask(url+path, token); status != http.StatusOK || !strings.Contains(text, want) {
				t.Errorf("%s%s: %d %.200s", url, path, status, text)
			}
		}
	}
}
