package overlay_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/overlay"
	"muster/controller/provision"
	"muster/controller/selection"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

type site struct {
	*apitest.Head
	o  *overlay.Overlays
	n0 string
}

// live says nothing of any node.
type live struct{}

func (live) Status(string) (map[string]any, error) { return map[string]any{"state": "up"}, nil }

func start(t *testing.T) *site {
	s := &site{}
	s.Head = apitest.Start(t, apitest.Options{
		Live: func(string) ([]byte, []byte) { return []byte(`{"disks":[{"name":"sda"}]}`), []byte(`{"state":"up"}`) },
		Routes: func(h *apitest.Head) [][]api.Route {
			p := provision.New(provision.Options{Objects: h.Registry, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Status: live{}.Status,
				Head: func() map[string]any { return map[string]any{"ip": "10.0.0.1"} }})
			nodes := &selection.Selection{Objects: h.Registry}
			s.o = &overlay.Overlays{Objects: h.Registry, Matcher: nodes.Matcher, Values: p.Values}
			return [][]api.Route{s.o.Routes()}
		},
	})
	s.Create("attribs", `{"name":"gpu","attributes":{"rack":"r7","_secret":"hush"}}`)
	s.n0 = s.Create("nodes", `{"mac":"52:54:00:00:00:09","groups":["gpu"],"attributes":{"bad":"x\nreboot"}}`)
	s.Create("nodes", `{"mac":"52:54:00:00:00:0a"}`)
	return s
}

func (s *site) shown(t *testing.T, node string) (all overlay.Shown) {
	t.Helper()
	if err := json.Unmarshal(s.OK("GET", "/node/"+node+"/overlay", nil), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRender(t *testing.T) {
	s := start(t)
	if all := s.shown(t, "n0"); all.Digest != "" || len(all.Files) != 0 {
		t.Errorf("files without an overlay: %+v", all)
	}
	s.Create("overlays", `{"name":"20-gpu","selector":"%gpu","files":[
		{"path":"/etc/motd","content":"<name> in <a[rack]> with <h[disks.0.name]>, head <head[ip]>\n","owner":"daemon","mode":"0640"},
		{"path":"/etc/lit","content":"<name>","literal":true},
		{"path":"/etc/broken","content":"ok\nok\n<a[gone]>"},
		{"path":"/etc/evil","content":"<bad>"},
		{"path":"/etc/key","content":"<a[_secret]>"}]}`)
	s.Create("overlays", `{"name":"10-all","selector":"name =~ \"\"","files":[{"path":"/etc/motd","content":"all\n"},{"path":"/etc/token","content":"t","secret":true}]}`)
	all := s.shown(t, "n0")
	got := map[string]overlay.ShownFile{}
	for _, f := range all.Files {
		got[f.Path] = f
	}
	want := overlay.ShownFile{Overlay: "20-gpu", Path: "/etc/motd", Owner: "daemon", Mode: "0640", Content: "n0 in r7 with sda, head 10.0.0.1\n"}
	if got["/etc/motd"] != want {
		t.Errorf("got %+v, want %+v", got["/etc/motd"], want)
	}
	if got["/etc/lit"].Content != "<name>" || got["/etc/key"].Content != "hush" || !got["/etc/key"].Secret || got["/etc/token"].Mode != "0600" {
		t.Errorf("got %+v", got)
	}
	if len(all.Failed) != 2 || all.Failed[0].Path != "/etc/broken" {
		t.Fatalf("failed: %+v", all.Failed)
	}
	for _, word := range []string{"20-gpu", "/etc/broken", "line 3", "n0", "gone"} {
		if !strings.Contains(all.Failed[0].Error, word) {
			t.Errorf("%q does not say %q", all.Failed[0].Error, word)
		}
	}
	if other := s.shown(t, "n1"); len(other.Files) != 2 || other.Files[0].Content != "all\n" {
		t.Errorf("n1 gets %+v", other)
	}
	// Without a certificate there are no secrets.
	open, _ := s.o.Of(s.n0, false)
	for _, f := range open.Files {
		if f.Secret {
			t.Errorf("%s goes to who asks from the node's address", f.Path)
		}
	}
	if len(open.Failed) != 4 {
		t.Errorf("failed %+v", open.Failed)
	}
	again := s.shown(t, "n0")
	s.OK("PATCH", "/attrib/gpu/attributes", `{"rack":"r8"}`)
	if s.shown(t, "n0").Digest == all.Digest || again.Digest != all.Digest {
		t.Error("the digest must change with the content, and only then")
	}
	a := s.DoAsNode(t, s.n0)
	if len(a.Files) != 2 || a.Digest == "" {
		t.Errorf("the node gets %+v", a)
	}
}

// DoAsNode asks as the node, over plain HTTP.
func (s *site) DoAsNode(t *testing.T, uid string) (all wire.Overlay) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.Server.URL+wire.PathFiles, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(apitest.AsNode, uid)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&struct{ Data *wire.Overlay }{&all}); err != nil {
		t.Fatal(err)
	}
	return all
}

// Who may not read reserved attributes sees no secrets, and cannot bring them
// to where he could.
func TestRights(t *testing.T) {
	s := start(t)
	uid := s.Create("overlays", `{"name":"o","selector":"%gpu","files":[{"path":"/etc/key","content":"<a[_secret]>"},{"path":"/etc/token","content":"hush","secret":true},{"path":"/etc/motd","content":"hi"}]}`)
	spec := object.All()[0]
	for _, k := range s.Registry.Specs() {
		if k.Name == object.KindOverlay {
			spec = k
		}
	}
	by := kind.Author{Name: "jo", Can: func(p kind.Permission) bool { return p != kind.ReservedAttribRead }}
	o, err := s.Registry.Find(object.KindOverlay, uid)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(spec.Redact(o, by))
	if err != nil || strings.Contains(string(raw), "hush") || strings.Contains(string(raw), "_secret") || !strings.Contains(string(raw), `"hi"`) {
		t.Errorf("shown as %s", raw)
	}
	for _, body := range []string{`{"selector":"name =~ \"\""}`, `{"files":[{"path":"/tmp/x","content":"<a[_secret]>"}]}`, `{"files":[{"path":"/etc/motd","content":"hi"}]}`, `{"selector":"a[_x] == 1"}`} {
		var in map[string]json.RawMessage
		if err := json.Unmarshal([]byte(body), &in); err != nil {
			t.Fatal(err)
		}
		if err := s.Registry.Patch(t.Context(), by, object.KindOverlay, uid, in); err == nil {
			t.Errorf("%s was taken", body)
		}
	}
	// What was hidden may come back without its content by who may.
	s.OK("PATCH", "/overlay/o", `{"files":[{"path":"/etc/token","hidden":true,"secret":true,"mode":"0400"}]}`)
	if all := s.shown(t, "n0"); len(all.Files) != 1 || all.Files[0].Content != "hush" || all.Files[0].Mode != "0400" {
		t.Errorf("got %+v", all.Files)
	}
}
