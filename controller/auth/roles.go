package auth

import (
	"net/http"
	"strings"
	"sync"

	"muster/controller/api"
	"muster/shared/kind"
	"muster/shared/object"
)

// cacheRights bounds for how many lists of roles the result is remembered.
const cacheRights = 1 << 10

// grants remembers what lists of roles allow. The sets are shared by all
// callers: nobody may change one.
type grants struct {
	rights *object.Rights

	mu   sync.Mutex
	sets *lru[string, map[kind.Permission]bool]
}

func newGrants(rights *object.Rights) *grants {
	return &grants{rights: rights, sets: newLRU[string, map[kind.Permission]bool](cacheRights)}
}

// of gives what the roles allow together; an empty set when none is known.
func (g *grants) of(roles []string) map[kind.Permission]bool {
	key := strings.Join(roles, ",") // no role has a comma
	g.mu.Lock()
	defer g.mu.Unlock()
	set, ok := g.sets.get(key)
	if !ok {
		set = g.rights.Of(roles)
		g.sets.put(key, set)
	}
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

type role struct {
	Name        string            `json:"name"`
	Doc         string            `json:"description"`
	Permissions []kind.Permission `json:"permissions"`
}

type allRoles struct {
	Roles       []role            `json:"roles"`
	Permissions []kind.Permission `json:"permissions"`
}

// roles shows what there is to put into an admin's list of roles.
func (s *Service) roles(w http.ResponseWriter, r *http.Request) error {
	all := allRoles{Permissions: s.cfg.Rights.Permissions()}
	for _, entry := range object.Roles() {
		list := []kind.Permission{}
		set := s.grants.of([]string{entry.Name})
		for _, p := range all.Permissions {
			if set[p] {
				list = append(list, p)
			}
		}
		all.Roles = append(all.Roles, role{entry.Name, entry.Doc, list})
	}
	return api.Data(w, all)
}
