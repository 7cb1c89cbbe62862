// Package object declares muster's kinds, one file each: the Go struct and,
// beside it, the kind.Spec from which everything else about it comes.
//
// What is here is pure: it reads and writes only through kind.Look and
// kind.Tx. A new kind is one file and one line in All.
package object

import (
	"fmt"
	"slices"

	"muster/shared/kind"
)

// All is every kind, in the order in which people list them. The result is
// new at each call, bound and checked.
func All() []*kind.Spec {
	var rights *Rights
	specs := []*kind.Spec{
		node(), attrib(), image(), bootconfig(), network(), hostname(), namingpool(), dyngroup(), admin(func() *Rights { return rights }), cluster(),
		repo(), distro(), gitrepo(), overlay(),
		head(),
	}
	known := func(name string) bool {
		return slices.ContainsFunc(specs, func(s *kind.Spec) bool { return s.Name == name })
	}
	for _, s := range specs {
		if err := s.Bind(known); err != nil {
			panic(fmt.Sprintf("object: a declaration is wrong: %v", err)) // a unit test finds it first
		}
	}
	rights = NewRights(specs)
	return specs
}

// The names of the kinds.
const (
	KindNode       = "node"
	KindAttrib     = "attrib"
	KindImage      = "image"
	KindBootconfig = "bootconfig"
	KindNet        = "net"
	KindHostname   = "hostname"
	KindNamingpool = "namingpool"
	KindDyngroup   = "dyngroup"
	KindAdmin      = "admin"
	KindHead       = "head"
	KindCluster    = "cluster"
	KindRepo       = "repo"
	KindDistro     = "distro"
	KindGitrepo    = "gitrepo"
	KindOverlay    = "overlay"
)

// meta describes the fields that every kind has.
func meta(fields ...kind.Field) []kind.Field {
	return append(fields,
		kind.Field{Path: "uid", Summary: "32 characters that name the object for good", Source: kind.Head, Format: kind.Shown("uid")},
		kind.Field{Path: "last_modified", Summary: "when it last changed, in seconds since 1970", Source: kind.Head, Format: kind.Shown("time")},
		kind.Field{Path: "last_modified_on", Summary: "the head that took the last change", Source: kind.Head, Format: kind.Shown("text")},
		kind.Field{Path: "last_modified_by", Summary: "who made the last change", Source: kind.Head, Format: kind.Shown("text")},
		kind.Field{Path: "created", Summary: "when it was created, in seconds since 1970", Source: kind.Head, Format: kind.Shown("time")},
	)
}

func nameField(required bool) kind.Field {
	return kind.Field{Path: "name", Summary: "a name of your choice", Source: kind.User, Format: kind.Name, Required: required, Unique: true}
}

func descriptionField() kind.Field {
	return kind.Field{Path: "description", Summary: "free text", Source: kind.User, Format: kind.Text}
}

func frozenField() kind.Field {
	return kind.Field{Path: "frozen", Summary: "refuse every change until it is set to false", Source: kind.User, Format: kind.Bool}
}
