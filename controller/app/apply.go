package app

import (
	"context"
	"fmt"

	"muster/controller/apply"
	"muster/controller/exec"
	"muster/controller/registry"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// newApply connects what changes images on running nodes.
func (h *Head) newApply(x *exec.Exec) *apply.Apply {
	return &apply.Apply{
		Images: h.library, Agents: h.fleet, Log: h.log, Boots: h.dir.boots,
		Targets: func(ctx context.Context, by kind.Author, s apply.Set) ([]*object.Node, map[string]string, error) {
			return x.Targets(ctx, by, exec.Set(s))
		},
		Rules: func(n *object.Node) string { return object.Attribute(h.reg.Look(), n, object.AttrRestart) },
		Runs: func(uid string, image wire.Image) {
			h.fleet.Stamp(uid, wire.Step{Step: wire.StepImage, Detail: fmt.Sprintf("%s:%d, applied while it runs", image.Name, image.Version), Image: image.Digest})
		},
		Record: func(ctx context.Context, by kind.Author, image wire.Image, detail map[string]string) error {
			return h.reg.Record(ctx, by, registry.Entry{Action: "apply", Kind: object.KindImage, UID: image.UID, Name: image.Name, Detail: detail})
		},
	}
}

// boots gives the version that a node boots next, and the boot configuration
// that pins it.
func (d *directory) boots(n *object.Node) (image *wire.Image, pinned string) {
	look := d.reg.Look()
	bc, err := object.BootconfigOf(look, n)
	if err != nil || !bc.BootsImage() {
		return nil, ""
	}
	obj, ok := look.Get(object.KindImage, bc.Image)
	if !ok {
		return nil, ""
	}
	v, err := obj.(*object.Image).VersionOf(bc.ImageVersion)
	if err != nil {
		return nil, ""
	}
	if bc.ImageVersion != "" {
		pinned = bc.Name
	}
	return d.library.Wire(obj.(*object.Image), v), pinned
}
