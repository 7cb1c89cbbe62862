package library

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"muster/controller/api"
	"muster/controller/registry"
	"muster/images/chunk"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// Objects is what the library needs of the registry.
type Objects interface {
	Specs() []*kind.Spec
	Find(kindName, id string) (kind.Object, error)
	Create(ctx context.Context, by kind.Author, kindName string, in registry.Input) (string, error)
	Delete(ctx context.Context, by kind.Author, kindName, id string) error
	All(kindName string) []kind.Object
	Look() kind.Look
	Modify(ctx context.Context, by kind.Author, kindName, id string, fn func(kind.Tx, kind.Object) error) error
}

// Options are what the library has to be told.
type Options struct {
	Objects Objects
	Blobs   *Blobs
	Head    string // host name, for the stamps of an upload
	Log     *slog.Logger
	Now     func() time.Time
	// Extra gives further digests that are in use.
	Extra func() []string
	// Problems gives what is wrong with a boot configuration beside its files;
	// nil where nothing else is known of it.
	Problems func(*object.Bootconfig) []string
	// Kickstarts go along with exports; nil where there are none.
	Kickstarts Kickstarts
	// Booted gives the digests of the versions that nodes run, which are not
	// removed: nodes may still be reading them. nil where that is not known.
	Booted func() map[string]bool
}

// Library serves files of objects.
type Library struct {
	opt    Options
	verify *verifier
	deltas *deltas
	spare  spare

	checking sync.Mutex // one check of the store at a time
}

// New makes a library.
func New(opt Options) *Library {
	return &Library{opt: opt, verify: &verifier{blobs: opt.Blobs, right: map[string]string{}}, deltas: newDeltas(opt.Blobs), spare: spare{now: opt.Now, given: map[chunk.Digest]gift{}}}
}

// Limits of uploads, in bytes.
const (
	maxImage     = 256 << 30
	maxKernel    = 1 << 30
	maxInitramfs = 8 << 30
	maxISO       = 128 << 30
)

// slot is a place of an object that holds a file.
type slot struct {
	kindName string
	name     string // path word
	limit    int64
	image    bool // kept in chunks
	inspect  inspection
	get      func(kind.Object) *object.File
	set      func(kind.Object, *object.File, object.Content) // the stamps are those of the upload
}

func slots() []slot {
	return []slot{
		{object.KindBootconfig, "kernel", maxKernel, false, inspectKernel,
			func(o kind.Object) *object.File { return o.(*object.Bootconfig).Kernel },
			func(o kind.Object, f *object.File, _ object.Content) { o.(*object.Bootconfig).Kernel = f }},
		{object.KindBootconfig, "initramfs", maxInitramfs, false, inspectInitramfs,
			func(o kind.Object) *object.File { return o.(*object.Bootconfig).Initramfs },
			func(o kind.Object, f *object.File, _ object.Content) { o.(*object.Bootconfig).Initramfs = f }},
		{object.KindImage, "content", maxImage, true, inspectImage,
			func(o kind.Object) *object.File { return o.(*object.Image).Squash() },
			func(o kind.Object, f *object.File, c object.Content) { setContent(o.(*object.Image), f, c) }},
		{object.KindRepo, "iso", maxISO, false, inspectISO,
			func(o kind.Object) *object.File { return o.(*object.Repo).ISO },
			func(o kind.Object, f *object.File, _ object.Content) { o.(*object.Repo).ISO = f }},
	}
}

// Routes are the endpoints.
func (l *Library) Routes() []api.Route {
	routes := []api.Route{
		{Method: "GET", Path: wire.PathFile + "{digest}/{name}", Permission: kind.Public, Doc: "A file by its SHA-256, with ranges; for firmware and agents.", Handler: l.serveFile, Raw: fileType},
		{Method: "GET", Path: api.Root + "/image/{id}/content/info", Permission: "ImagesRead", Doc: "What is known of the image's content.", Handler: l.info, Answer: known{}},
		{Method: "GET", Path: api.Root + "/bootconfig/{id}/export", Permission: "BootconfigsRead", Doc: "The boot configuration with its files, its image and its kickstarts as one tar archive.", Handler: l.export, Raw: exportType,
			Query: []api.Param{{Name: "image", Doc: "false leaves the image out"}, {Name: "groups", Doc: "attribute groups to add, with commas"}}},
		{Method: "GET", Path: api.Root + "/bootconfigs/errors", Permission: "BootconfigsRead", Doc: "What keeps any boot configuration from booting.", Handler: l.allErrors, Answer: api.Nothing{}},
		{Method: "GET", Path: api.Root + "/bootconfig/{id}/errors", Permission: "BootconfigsRead", Doc: "What keeps the boot configuration from booting.", Handler: l.errors, Answer: api.Nothing{}},
	}
	for _, method := range []string{"POST", "PUT"} {
		routes = append(routes, api.Route{Method: method, Path: api.Root + "/bootconfigs/import", Permission: "BootconfigsWrite", Doc: "Make a boot configuration and what belongs to it from an export.",
			Handler: l.importBootconfig, Upload: true, Answer: imported{}, Query: []api.Param{{Name: "name", Doc: "another name for the boot configuration"}, {Name: "image", Doc: "another name for the image"}}})
	}
	routes = append(routes, l.versionRoutes()...)
	routes = append(routes, l.chunkRoutes()...)
	perms := map[string][2]kind.Permission{
		object.KindBootconfig: {"BootconfigsRead", "BootconfigsWrite"},
		object.KindImage:      {"ImagesRead", "ImagesWrite"},
		object.KindRepo:       {"ReposRead", "ReposWrite"},
	}
	for _, s := range slots() {
		path, p := api.Root+"/"+s.kindName+"/{id}/"+s.name, perms[s.kindName]
		routes = append(routes,
			api.Route{Method: "GET", Path: path, Permission: p[0], Doc: "The " + s.name + " as it was uploaded.", Handler: l.download(s), Raw: fileType},
			api.Route{Method: "PUT", Path: path, Permission: p[1], Doc: "Replace the " + s.name + " by the uploaded file.", Handler: l.upload(s), Upload: true, Answer: api.Nothing{}},
			api.Route{Method: "DELETE", Path: path, Permission: p[1], Doc: "Remove the " + s.name + ".", Handler: l.remove(s), Answer: api.Nothing{}},
		)
		if s.kindName != object.KindBootconfig {
			routes = append(routes, api.Route{Method: "GET", Path: path + "/stat", Permission: p[0], Doc: "Size and time of the " + s.name + ".", Handler: l.stat(s), Answer: size{}})
		}
	}
	return routes
}

// Sweeping: often enough to give back room within a working day, seldom enough
// not to matter.
const (
	sweepEvery = time.Hour
	sweepGrace = 2 * time.Hour
)

// Run removes unused files from time to time until ctx ends.
func (l *Library) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		l.prune(ctx)
		n, err := l.opt.Blobs.Sweep(ctx, l.used, sweepGrace, l.opt.Now())
		if err != nil && ctx.Err() == nil {
			l.opt.Log.Warn("unused files could not be removed", "error", err)
		}
		freed, err := l.SweepChunks(ctx)
		if err != nil && ctx.Err() == nil {
			l.opt.Log.Warn("unused chunks could not be removed", "error", err)
		}
		if n > 0 || freed > 0 {
			l.opt.Log.Info("removed what nothing uses any more", "files", n, "bytes of chunks", freed)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// used gives the digests that objects name.
func (l *Library) used() map[string]bool {
	out := map[string]bool{}
	for _, d := range l.opt.Extra() {
		out[d] = true
	}
	for _, s := range slots() {
		for _, o := range l.opt.Objects.All(s.kindName) {
			if f := s.get(o); f != nil {
				out[f.SHA256] = true
			}
		}
	}
	l.eachVersion(func(v *object.Version) {
		// One that is kept in one piece has no indices.
		for _, d := range []string{v.File.SHA256, v.File.Pieces, v.File.Index, v.File.Tree} {
			out[d] = true
		}
	})
	return out
}
