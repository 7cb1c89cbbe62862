package cluster

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"

	"muster/controller/api"
	"muster/shared/object"
)

// Extend lets GET /cluster, which is among the generic routes, tell of the head
// and of what it can do beside the cluster's own record.
func (i *Info) Extend(generic []api.Route) []api.Route {
	for k := range generic {
		if rt := &generic[k]; rt.Method == "GET" && rt.Path == api.Root+"/cluster" {
			rt.Handler, rt.Answer = i.whole(rt.Handler), api.Any()
			rt.Doc = "The settings of the cluster, and what its head is and can do."
		}
	}
	return generic
}

// whole adds to what the generic endpoint answers. Its ETag stays that of the
// settings, which is what a change must not miss.
func (i *Info) whole(record api.Handler) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		got := &answer{header: w.Header()}
		if err := record(got, r); err != nil {
			return err
		}
		if got.status != 0 && got.status != http.StatusOK || r.URL.RawQuery != "" { // it did not change, or a part was asked for
			if got.status != 0 {
				w.WriteHeader(got.status)
			}
			_, err := w.Write(got.body.Bytes())
			return err
		}
		var settings struct {
			Data map[string]any `json:"data"`
		}
		d := json.NewDecoder(&got.body)
		d.UseNumber()
		if err := d.Decode(&settings); err != nil {
			return err
		}
		w.Header().Del("Content-Length")
		return api.Data(w, i.beside(settings.Data))
	}
}

// beside adds to the settings.
func (i *Info) beside(settings map[string]any) map[string]any {
	out := maps.Clone(settings)
	auth := maps.Clone(i.Auth)
	auth["settings"] = settings["auth_config"]
	monitoring := maps.Clone(i.Monitoring)
	_, monitoring["influx_token_set"] = settings["influx_token"]
	now := i.time()
	maps.Copy(out, map[string]any{
		"time": now.Time, "iso": now.ISO,
		"version": i.Version, "head": i.Head, "head_uid": i.UID, "auth": auth, "monitoring": monitoring,
		"image_formats": []string{object.ContentFormat},
		"plugins":       map[string]any{"image_format": []string{object.ContentFormat}, "boot_style": object.Styles(), "accountant": object.Accountants()},
	})
	return out
}

// answer takes what another handler answers.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
