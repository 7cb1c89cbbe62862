// Package database keeps the head's stores in order: it says what is stale in
// them, and removes it.
//
// It only gathers: what is stale in a store is known by who keeps it. Nothing
// that an admin made is removed.
package database

import (
	"context"
	"log/slog"
	"net/http"

	"muster/controller/api"
	"muster/controller/registry"
	"muster/shared/kind"
)

// Objects is what the package needs of the registry.
type Objects interface {
	Clean(ctx context.Context, by kind.Author, onlyLook bool) (registry.Cleaning, error)
}

// Telemetry is what the package needs of the fleet.
type Telemetry interface {
	// Stale gives the UIDs of deleted nodes of which something is still kept.
	Stale() []string
	// Prune forgets them.
	Prune()
}

// File is one that nothing uses.
type File struct {
	UID    string  `json:"uid"`
	SHA256 string  `json:"sha256"`
	Size   int64   `json:"size"`  // bytes
	MTime  float64 `json:"mtime"` // seconds since 1970
}

// Database cleans.
type Database struct {
	Objects   Objects
	Telemetry Telemetry
	// Files gives the files that nothing uses, and removes them if told to.
	Files func(ctx context.Context, remove bool) ([]File, error)
	Log   *slog.Logger
}

// Routes are the endpoints.
func (d *Database) Routes() []api.Route {
	const clean, unused = api.Root + "/database/clean", api.Root + "/head/files/unused"
	return []api.Route{
		{Method: "GET", Path: clean, Permission: "ClusterRead", Doc: "What cleaning the database would do; nothing is changed.", Handler: d.clean(true), Answer: cleaned{}},
		{Method: "POST", Path: clean, Permission: "ClusterWrite", Doc: "Clean the database: put indexes right, drop references to what is no more, remove what nothing uses.", Handler: d.clean(false), Answer: cleaned{}},
		{Method: "GET", Path: unused, Permission: kind.HeadOnly, Doc: "The files in this head's store that nothing uses.", Handler: d.files(false), Answer: []File{}},
		{Method: "DELETE", Path: unused, Permission: kind.HeadOnly, Doc: "Remove the files that nothing uses; the answer lists them.", Handler: d.files(true), Answer: []File{}},
	}
}

// cleaned is what cleaning did, or would do.
type cleaned struct {
	Done bool `json:"done"` // false: it was only looked
	registry.Cleaning
	Nodes []string `json:"telemetry"` // UIDs of deleted nodes of which something is kept
	Files []File   `json:"files"`     // that nothing uses
}

func (d *Database) clean(onlyLook bool) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		out := cleaned{Done: !onlyLook}
		var err error
		if out.Cleaning, err = d.Objects.Clean(r.Context(), api.By(r), onlyLook); err != nil {
			return err
		}
		out.Nodes = d.Telemetry.Stale()
		if !onlyLook {
			d.Telemetry.Prune()
		}
		if out.Files, err = d.Files(r.Context(), !onlyLook); err != nil {
			return err
		}
		if !onlyLook {
			d.Log.Info("cleaned the database", "admin", api.By(r).Name, "references", len(out.References), "keys", len(out.Keys), "hints", len(out.Hints), "nodes", len(out.Nodes), "files", len(out.Files))
		}
		return api.Data(w, out)
	}
}

func (d *Database) files(remove bool) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		files, err := d.Files(r.Context(), remove)
		if err != nil {
			return err
		}
		if remove && len(files) > 0 {
			d.Log.Info("removed unused files", "count", len(files), "from", api.CallerOf(r.Context()).Addr)
		}
		return api.Data(w, files)
	}
}
