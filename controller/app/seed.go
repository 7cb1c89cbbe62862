package app

import (
	"context"
	"encoding/json"

	"muster/controller/auth"
	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// seed makes what a new cluster starts with: an admin named as the user who
// started the head, an image, a boot configuration for it, and the attribute
// group that gives it to every node. The cluster's own record comes last and
// marks that it was done: what an admin deletes later is not made again.
func seed(ctx context.Context, reg *registry.Registry) error {
	if _, ok := reg.Look().Oldest(object.KindCluster); ok {
		return nil
	}
	user, err := auth.StartedBy(ctx)
	if err != nil {
		return err
	}
	for _, o := range []struct {
		kind string
		doc  map[string]any
	}{
		{object.KindAdmin, map[string]any{"name": user, "roles": []string{object.RoleAuthUser, object.RoleFullAdmin}}},
		{object.KindImage, map[string]any{"name": "DefaultImage", "description": "the image of DefaultBoot"}},
		{object.KindBootconfig, map[string]any{"name": "DefaultBoot", "image": "DefaultImage", "description": "what nodes boot unless they say otherwise"}},
		{object.KindAttrib, map[string]any{"name": "DefaultAttribs", "attributes": map[string]string{object.AttrBootConfig: "DefaultBoot"}}},
		{object.KindCluster, map[string]any{"default_group": "DefaultAttribs", "accept_new_nodes": false}},
	} {
		in := registry.Input{}
		for k, v := range o.doc {
			if in[k], err = json.Marshal(v); err != nil {
				return err
			}
		}
		_, err := reg.Create(ctx, kind.Author{Name: "muster"}, o.kind, in)
		if err != nil && !fault.Is(err, fault.Conflict) { // an earlier start was interrupted here
			return err
		}
	}
	return nil
}
