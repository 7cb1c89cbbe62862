package object

import (
	"fmt"
	"slices"
	"strings"

	"muster/shared/kind"
)

// The roles. An admin with several may do what any of them allows, but for
// RoleNoAccess, which takes everything away.
const (
	RoleFullAdmin       = "role.fulladmin"
	RoleAuthUser        = "role.authuser"
	RoleOnsiteEngineer  = "role.onsiteengineer"
	RoleImagingAdmin    = "role.imagingadmin"
	RoleProductionAdmin = "role.productionadmin"
	RoleNoAccess        = "role.noaccess"
)

// Role is one named set of permissions.
type Role struct {
	Name string
	Doc  string
	// grants says whether the role holds p; read is whether p lets somebody
	// read a kind.
	grants func(p kind.Permission, read bool) bool
}

// Roles is the table of roles. A new role is one more entry. Every role but
// RoleNoAccess lets its holder log in, and all but RoleFullAdmin begin with
// reading.
func Roles() []Role {
	with := func(more ...kind.Permission) func(kind.Permission, bool) bool {
		return func(p kind.Permission, read bool) bool { return read || slices.Contains(more, p) }
	}
	return []Role{
		{RoleFullAdmin, "everything", func(kind.Permission, bool) bool { return true }},
		{RoleAuthUser, "log in and read, reserved attributes excepted", with()},
		{RoleOnsiteEngineer, "what is done at the racks: add, change and remove nodes, and switch their power", with(
			"NodesWrite", kind.NodesPowerControl)},
		{RoleImagingAdmin, "images and what they are made of: boot configurations, overlays, distributions, repositories", with(
			"ImagesWrite", "OverlaysWrite", "BootconfigsWrite", "DistrosWrite", "ReposWrite", "GitreposWrite", kind.ReservedAttribRead)},
		{RoleProductionAdmin, "run the nodes: their attributes, groups, names, networks and power, what they boot, and commands on them", with(
			"NodesWrite", kind.NodesWriteGroups, kind.NodesPowerControl, kind.NodesExecCommand, "AttribsWrite", "DyngroupsWrite",
			"NamingpoolsWrite", "NetsWrite", "HostnamesWrite", "OverlaysWrite", kind.ReservedAttribRead, kind.ReservedAttribWrite)},
		{RoleNoAccess, "nothing at all, whatever the other roles allow", func(kind.Permission, bool) bool { return false }},
	}
}

// Rights knows what roles allow. An entry of an admin's list of roles is a
// role, a permission that is given directly ("NodesExecCommand"), or one that
// is taken away whatever else gives it ("-NodesExecCommand").
type Rights struct {
	permissions []kind.Permission
	roles       []string
	sets        map[string]map[kind.Permission]bool
}

// NewRights works out the roles for these kinds.
func NewRights(specs []*kind.Spec) *Rights {
	r := &Rights{permissions: kind.Permissions(specs), sets: map[string]map[kind.Permission]bool{}}
	reads := map[kind.Permission]bool{}
	for _, s := range specs {
		reads[s.Read] = true
	}
	for _, role := range Roles() {
		set := map[kind.Permission]bool{}
		for _, p := range r.permissions {
			if role.grants(p, reads[p]) {
				set[p] = true
			}
		}
		r.roles = append(r.roles, role.Name)
		r.sets[role.Name] = set
	}
	return r
}

// Permissions lists all that can be given, sorted.
func (r *Rights) Permissions() []kind.Permission { return slices.Clone(r.permissions) }

// Of gives what the entries allow together; an empty set when nothing is
// known to be given, as for RoleNoAccess. kind.LoggedIn is in every other.
func (r *Rights) Of(entries []string) map[kind.Permission]bool {
	set := map[kind.Permission]bool{}
	if slices.Contains(entries, RoleNoAccess) {
		return set
	}
	for _, e := range entries {
		given, ok := r.sets[e]
		if !ok && slices.Contains(r.permissions, kind.Permission(e)) {
			given = map[kind.Permission]bool{kind.Permission(e): true}
			ok = true
		}
		for p := range given {
			set[p] = true
		}
		if ok {
			set[kind.LoggedIn] = true
		}
	}
	for _, e := range entries {
		if p, ok := strings.CutPrefix(e, "-"); ok {
			delete(set, kind.Permission(p))
		}
	}
	return set
}

// Beyond gives, sorted, what the entries allow that a caller with can may not do.
func (r *Rights) Beyond(entries []string, can func(kind.Permission) bool) []kind.Permission {
	var out []kind.Permission
	for p := range r.Of(entries) {
		if !can(p) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// full says whether the entries allow everything.
func (r *Rights) full(entries []string) bool {
	set := r.Of(entries)
	return !slices.ContainsFunc(r.permissions, func(p kind.Permission) bool { return !set[p] })
}

// parse checks one entry. The prefix of a role may be left out.
func (r *Rights) parse(s string) (string, error) {
	switch {
	case slices.Contains(r.roles, s):
		return s, nil
	case slices.Contains(r.roles, "role."+s):
		return "role." + s, nil
	case slices.Contains(r.permissions, kind.Permission(strings.TrimPrefix(s, "-"))):
		return s, nil
	}
	return "", fmt.Errorf("%q is no role of this head: there are %s, and single permissions such as %s, with - in front to take one away; GET /api/v1/roles shows all of them",
		s, strings.Join(r.roles, ", "), kind.NodesExecCommand)
}
