package registry

import (
	"context"
	"fmt"
	"slices"

	"muster/shared/fault"
	"muster/shared/kind"
)

// Version names the state in which an object is stored: another one after each
// change, and never the same for another object.
func Version(obj kind.Object) string {
	m := obj.Base()
	return fmt.Sprintf("%.12s-%x", m.UID, int64(m.LastModified*1e6))
}

type versionsKey struct{}

// IfVersion gives a context with which a change is refused (fault.Changed)
// unless the object that it names has one of these versions at the moment when
// it is changed: nobody's change is overwritten unseen.
func IfVersion(ctx context.Context, versions []string) context.Context {
	return context.WithValue(ctx, versionsKey{}, versions)
}

// unchangedSince holds a change to the context's versions.
func unchangedSince(ctx context.Context, spec *kind.Spec, obj kind.Object) error {
	versions, ok := ctx.Value(versionsKey{}).([]string)
	if !ok || slices.Contains(versions, Version(obj)) {
		return nil
	}
	m := obj.Base()
	return fault.New(fault.Changed, "The %s was changed by %s since you read it: read it again, and change that.", spec.Name, m.LastModifiedBy)
}
