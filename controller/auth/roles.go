package auth

import (
	"maps"
	"sync"

	"muster/shared/kind"
	"muster/shared/object"
)

// MintTokens lets an admin make tokens for others who may do no more than
// himself. No kind implies it.
const MintTokens kind.Permission = "AdminsMintTokens"

// Role is one named set of permissions. An admin with several holds them all.
type Role struct {
	Name string
	Doc  string
	// grants says whether the role holds p; read is whether p lets somebody
	// read a kind.
	grants func(p kind.Permission, read bool) bool
}

// Roles is the table of roles. A new role is one more entry. Every role lets
// its holder log in and use what needs no more than that.
func Roles() []Role {
	return []Role{
		{object.RoleFullAdmin, "everything", func(kind.Permission, bool) bool { return true }},
		{object.RoleAuthUser, "log in and read, reserved attributes excepted", func(p kind.Permission, read bool) bool {
			return read && p != kind.ReservedAttribRead
		}},
	}
}

// grants turns lists of role names into permissions. The sets are shared by
// all callers: nobody may change one.
type grants struct {
	roles []string
	sets  []map[kind.Permission]bool // one for each role

	mu    sync.RWMutex
	union map[uint64]map[kind.Permission]bool // by the bits of the roles
}

func newGrants(all, read []kind.Permission) *grants {
	reads := map[kind.Permission]bool{}
	every := map[kind.Permission]bool{MintTokens: true}
	for _, p := range []kind.Permission{kind.NodesExecCommand, kind.NodesPowerControl, kind.NodesWriteGroups, kind.ReservedAttribRead, kind.ReservedAttribWrite} {
		every[p] = true
	}
	for _, p := range all {
		every[p] = true
	}
	for _, p := range read {
		every[p], reads[p] = true, true
	}
	// These say how a caller is known; no role makes an admin a node or a head.
	for _, p := range []kind.Permission{kind.Public, kind.NodeOnly, kind.HeadOnly, kind.OnlyLocal} {
		delete(every, p)
	}
	g := &grants{union: map[uint64]map[kind.Permission]bool{0: {}}}
	for _, r := range Roles() {
		set := map[kind.Permission]bool{kind.LoggedIn: true}
		for p := range every {
			if r.grants(p, reads[p]) {
				set[p] = true
			}
		}
		g.roles, g.sets = append(g.roles, r.Name), append(g.sets, set)
	}
	return g
}

// of gives what the roles allow together; an empty set when none is known.
func (g *grants) of(roles []string) map[kind.Permission]bool {
	var bits uint64
	for _, name := range roles {
		for i, known := range g.roles {
			if name == known {
				bits |= 1 << i
			}
		}
	}
	g.mu.RLock()
	set, ok := g.union[bits]
	g.mu.RUnlock()
	if ok {
		return set
	}
	set = map[kind.Permission]bool{}
	for i := range g.roles {
		if bits&(1<<i) != 0 {
			maps.Copy(set, g.sets[i])
		}
	}
	g.mu.Lock()
	g.union[bits] = set
	g.mu.Unlock()
	return set
}

// covers says whether a holder of have may do all that a holder of want may.
func covers(have, want map[kind.Permission]bool) bool {
	for p := range want {
		if !have[p] {
			return false
		}
	}
	return true
}
