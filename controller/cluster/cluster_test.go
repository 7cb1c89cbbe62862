package cluster_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/cluster"
	"muster/shared/kind"
)

const sshKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHDGa51ZBbZi97zfZLMXUuSdLFBqxiAnsKZYHDTCKIPo"

func TestInfo(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	var info *cluster.Info
	h := apitest.Start(t, apitest.Options{Routes: func(h *apitest.Head) [][]api.Route {
		info = &cluster.Info{Objects: h.Registry, Head: apitest.HeadName, Version: "1.2", UID: "u1", Bundle: func() []byte { return []byte("PEM") }, Now: func() time.Time { return now },
			Auth: map[string]any{"methods": []string{"password"}}, Monitoring: map[string]any{"report_every": 10}, DatabaseSize: func() int64 { return 4711 }}
		return [][]api.Route{info.Routes()}
	}})
	get := func(path string, want string) {
		t.Helper()
		if got := string(h.OK("GET", "/cluster/"+path, nil)); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	get("time", `{"iso":"2030-01-02T03:04:05.6Z","time":1893553445.6}`)
	get("cabundle", `"PEM"`)
	get("hosts", `{}`)
	first := h.Create("nodes", `{"mac":"52:54:00:00:00:01"}`)
	get("hosts", `{}`) // it has no address yet
	net := h.Create("nets", `{"first_ip":"10.0.0.1","ip_count":9,"mask_bits":24}`)
	second := h.Create("nodes", `{"mac":"52:54:00:00:00:02"}`)
	get("hosts", `{"n0":"10.0.0.1","n1":"10.0.0.2"}`)
	get("database", fmt.Sprintf(`{"head":"head1","heads":0,"revision":%d,"size":4711,"status":"up","type":"bbolt","uid":"u1","version":"1.2"}`, h.Registry.Revision()))
	get("license", `{"expires":null,"license":"Apache-2.0","name":"Apache License, Version 2.0","nodes":2,"nodes_allowed":"unlimited","url":"https://www.apache.org/licenses/LICENSE-2.0","valid":true}`)
	head := h.Create("heads", `{"uid":"0123456789abcdef0123456789abcdef","ssh_public":"`+sshKey+` head2","name":"head2","addresses":["10.0.0.99","fd00::9"]}`)
	get("hosts", `{"head2":"10.0.0.99","n0":"10.0.0.1","n1":"10.0.0.2"}`)
	h.OK("PUT", "/admin/admin1/keys", []string{sshKey + " jo@desk"})
	get("sshkeys", `{"authorized_keys":["`+sshKey+` jo@desk"],"heads":{"`+head+`":"`+sshKey+` head2"}}`)
	var summary map[string][]string
	if err := json.Unmarshal(h.OK("GET", "/cluster/summary", nil), &summary); err != nil {
		t.Fatal(err)
	}
	nodes := []string{first, second}
	slices.Sort(nodes)
	if !slices.Equal(summary["nodes"], nodes) || !slices.Equal(summary["nets"], []string{net}) || summary["images"] == nil || len(summary["admins"]) != 1 {
		t.Errorf("summary %v", summary)
	}
	for _, r := range info.Routes() {
		secret := slices.Contains([]string{api.Root + "/cluster/summary", api.Root + "/cluster/license"}, r.Path)
		if secret == (r.Permission == kind.Public) {
			t.Errorf("%s has permission %s", r.Path, r.Permission)
		}
	}
	for _, body := range []string{`{"accept_new_nodes":"yes"}`, `{"naming":"nobody"}`, `{"default_group":"nobody"}`, `{"uid":"x"}`, `{"time":5}`} {
		h.Refused("PATCH", "/cluster", body)
	}
	h.OK("PATCH", "/cluster", `{"cluster_name":"c","accept_new_nodes":true}`)
	h.OK("PATCH", "/cluster", `{"cluster_id":123456}`)
	if c := h.Get("cluster"); c["cluster_id"] != "123456" {
		t.Errorf("cluster_id %v", c["cluster_id"])
	}
	if c := h.Get("cluster"); c["cluster_name"] != "c" || c["accept_new_nodes"] != true {
		t.Errorf("cluster %v", c)
	}
}
