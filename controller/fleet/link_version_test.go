package fleet_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"muster/controller/api/apitest"
	"muster/controller/fleet/fleettest"
	"muster/shared/wire"
)

// TestIncompatibleAgent dials as an agent that speaks another protocol.
func TestIncompatibleAgent(t *testing.T) {
	h := fleettest.Start(t, "")
	uid := h.Node(1)
	for version, says := range map[string]string{"99": `"99"`, "x": `"x"`, "-1": `"-1"`, "1": ""} {
		header := http.Header{apitest.AsNode: {uid}, wire.HeaderAgent: {"9.9"}, wire.HeaderVersion: {version}}
		ws, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(h.Server.URL, "http")+wire.PathLink, header)
		if says == "" {
			if err != nil {
				t.Errorf("version %s: %v", version, err)
			} else {
				ws.Close()
			}
			continue
		}
		if err == nil || resp == nil {
			t.Fatalf("version %s: %v, want a refusal", version, err)
		}
		body, _ := io.ReadAll(resp.Body)
		if text := strings.ReplaceAll(string(body), `\"`, `"`); resp.StatusCode != http.StatusConflict || !strings.Contains(text, says) || !strings.Contains(text, "install") {
			t.Errorf("version %s: %d %s", version, resp.StatusCode, text)
		}
	}
}
