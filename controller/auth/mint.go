package auth

import (
	"net/http"
	"strconv"
	"time"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
)

func (s *Service) mint(w http.ResponseWriter, r *http.Request) error {
	timeout, err := s.timeout(w, r)
	if err != nil {
		return err
	}
	caller, id := api.CallerOf(r.Context()), r.PathValue("id")
	a, ok := s.admin(id)
	switch {
	case ok && a.UID == caller.UID:
	case !caller.Can(kind.AdminsMintTokens):
		return fault.New(fault.Forbidden, "Admin %s may make tokens for himself only: those for others need the permission %s.", caller.Admin, kind.AdminsMintTokens)
	case !ok:
		return fault.New(fault.NotFound, "No admin found for ID=%s", id)
	case !covers(s.grants.of(caller.Roles), s.grants.of(a.Roles)):
		return fault.New(fault.Forbidden, "Admin %s may do more than %s, who therefore cannot make tokens for him.", a.Name, caller.Admin)
	}
	g := grant{access: s.cfg.Access, refresh: s.cfg.Refresh}
	if timeout != 0 {
		g = grant{access: timeout, refresh: timeout, bound: true}
	}
	if err := s.confine(r, &g); err != nil {
		return err
	}
	set, err := s.issue(a, g)
	if err != nil {
		return err
	}
	s.cfg.Log.Info("token made", "for", a.Name, "by", caller.Admin, "seconds", set.ExpiresIn)
	s.record(r, caller.Admin, "token made", map[string]string{"for": a.Name, "seconds": strconv.FormatInt(set.ExpiresIn, 10)})
	noStore(w)
	return api.Data(w, granted{caller.Admin, a.Name, a.UID, set})
}

type mintOptions struct {
	Timeout *int64 `json:"timeout,omitempty"` // seconds
}

// timeout is the optional lifetime in the body of a request to mint; 0 when absent.
func (s *Service) timeout(w http.ResponseWriter, r *http.Request) (time.Duration, error) {
	raw, err := api.Body(w, r)
	if err != nil || raw == nil {
		return 0, err
	}
	var in mintOptions
	if err := api.Strict(raw, &in); err != nil || in.Timeout == nil {
		return 0, err
	}
	if longest := int64(s.cfg.Minted / time.Second); *in.Timeout < 1 || *in.Timeout > longest {
		return 0, fault.Invalidf("timeout: %d is not a number of seconds from 1 to %d.", *in.Timeout, longest)
	}
	return time.Duration(*in.Timeout) * time.Second, nil
}

// confine keeps a token that was made for a while from making others that
// outlive it.
func (s *Service) confine(r *http.Request, g *grant) error {
	c, err := s.asker(r)
	if err != nil || !c.Bound {
		return err
	}
	left := c.expires().Sub(s.cfg.Now())
	if g.bound && g.refresh > left {
		return fault.New(fault.Forbidden, "timeout: the token that asks ends in %d s and cannot make one that lives longer.", int64(left/time.Second))
	}
	g.access, g.refresh, g.bound = min(g.access, left), min(g.refresh, left), true
	return nil
}

// asker gives the claims of the access token that a request came with.
func (s *Service) asker(r *http.Request) (*claims, error) {
	token, err := bearer(r)
	if err != nil {
		return nil, err
	}
	return s.tokens.verify(token, accessToken)
}

// logout needs no role: whoever lost his can still end his login.
func (s *Service) logout(w http.ResponseWriter, r *http.Request) error {
	c, err := s.asker(r)
	if err != nil {
		return err
	}
	a, err := s.holder(c)
	if err != nil {
		return err
	}
	longest := max(s.cfg.Access, s.cfg.Refresh, s.cfg.Minted)
	if err := s.ended.add(c.login(), s.cfg.Now().Add(longest)); err != nil {
		return err
	}
	s.cfg.Log.Info("logged out", "admin", a.Name, "from", s.clientAddr(r))
	return api.OK(w)
}

func (s *Service) revoke(w http.ResponseWriter, r *http.Request) error {
	caller, id := api.CallerOf(r.Context()), r.PathValue("id")
	a, ok := s.admin(id)
	switch {
	case ok && a.UID == caller.UID:
	case !caller.Can("AdminsWrite"):
		return fault.New(fault.Forbidden, "Admin %s may revoke his own tokens only: those of others need the permission AdminsWrite.", caller.Admin)
	case !ok:
		return fault.New(fault.NotFound, "No admin found for ID=%s", id)
	}
	if err := s.cfg.Admins.RevokeTokens(r.Context(), api.By(r), a.UID); err != nil {
		return err
	}
	s.cfg.Log.Info("tokens revoked", "of", a.Name, "by", caller.Admin)
	s.record(r, caller.Admin, "tokens revoked", map[string]string{"of": a.Name})
	return api.OK(w)
}

// admin finds one by UID or name.
func (s *Service) admin(id string) (Admin, bool) {
	if a, ok := s.cfg.Admins.AdminByUID(id); ok {
		return a, true
	}
	return s.cfg.Admins.AdminByName(id)
}
