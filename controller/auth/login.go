package auth

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
)

// Routes are the endpoints of this package.
func (s *Service) Routes() []api.Route {
	return []api.Route{
		{Method: "POST", Path: "/api/v1/login", Permission: kind.Public, Handler: s.login,
			Doc: "Log in with `user` and `pass` (checked by PAM on this head), or with `user` and `secret` (left at login.sock within the last 60 s); gives an access and a refresh token."},
		{Method: "GET", Path: "/api/v1/newtoken", Permission: kind.OnlyLocal, Handler: s.refresh,
			Doc: "A new set of tokens for the refresh token in the Authorization header; an access token is refused."},
		{Method: "GET", Path: "/api/v1/whoami", Permission: kind.LoggedIn, Handler: s.whoami,
			Doc: "The admin whose token this is: `userid`, `uid`, `roles`."},
		{Method: "GET", Path: "/api/v1/roles", Permission: kind.LoggedIn, Handler: s.roles,
			Doc: "The roles and permissions that an admin's `roles` may list, and what each role allows."},
		{Method: "POST", Path: "/api/v1/admin/{id}/newtoken", Permission: kind.LoggedIn, Handler: s.mint,
			Doc: "A set of tokens for a tool: for oneself, or by a full admin for another; `timeout` bounds the life of all of it, in seconds."},
	}
}

// tokenSet is the published form of two tokens; times in seconds from now.
type tokenSet struct {
	Access         string `json:"access_token"`
	ExpiresIn      int64  `json:"expires_in"`
	Refresh        string `json:"refresh_token"`
	RefreshExpires int64  `json:"refresh_expires_in"`
}

// granted is the answer where somebody gets tokens without a password.
type granted struct {
	AuthorizedBy string   `json:"authorized_by"`
	UserID       string   `json:"userid"`
	UID          string   `json:"uid"`
	Token        tokenSet `json:"token"`
}

// issue makes a set that lives so long; bound ends with its refresh token all
// that is ever got with it.
func (s *Service) issue(a Admin, access, refresh time.Duration, bound bool) (set tokenSet, err error) {
	if set.Access, err = s.tokens.sign(a, accessToken, access, false); err != nil {
		return set, fmt.Errorf("signing a token: %w", err)
	}
	if set.Refresh, err = s.tokens.sign(a, refreshToken, refresh, bound); err != nil {
		return set, fmt.Errorf("signing a token: %w", err)
	}
	set.ExpiresIn, set.RefreshExpires = int64(access/time.Second), int64(refresh/time.Second)
	return set, nil
}

// noStore keeps tokens out of caches (RFC 6749 §5.1).
func noStore(w http.ResponseWriter) { w.Header().Set("Cache-Control", "no-store") }

func (s *Service) login(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		User   string  `json:"user"`
		Pass   *string `json:"pass"`
		Secret *string `json:"secret"`
	}
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	if (in.Pass == nil) == (in.Secret == nil) {
		return fault.Invalidf("Give either `pass` (the password) or `secret` (the one-time secret left at login.sock) beside `user`.")
	}
	if err := checkUser(in.User); err != nil {
		return fault.Invalidf("Cannot log in: %v.", err)
	}
	check := s.byPassword
	if in.Secret != nil {
		in.Pass, check = in.Secret, s.bySecret
	}
	if err := check(w, r, in.User, *in.Pass); err != nil {
		s.cfg.Log.Info("login refused", "user", in.User, "from", s.clientAddr(r), "reason", err)
		return err
	}
	a, ok := s.cfg.Admins.AdminByName(in.User)
	if !ok {
		return fault.New(fault.Forbidden, "%s is a user of the operating system but no admin of muster: a full admin can change that with POST /api/v1/admins.", in.User)
	}
	set, err := s.issue(a, s.cfg.Access, s.cfg.Refresh, false)
	if err != nil {
		return err
	}
	noStore(w)
	return api.Data(w, struct {
		User  string   `json:"user"`
		Token tokenSet `json:"token"`
	}{a.Name, set})
}

func (s *Service) byPassword(w http.ResponseWriter, r *http.Request, user, pass string) error {
	addr := s.clientAddr(r)
	attempt, wait := s.limits.begin(addr, user)
	if attempt == nil {
		return slowDown(w, wait)
	}
	err := s.passwords.check(r.Context(), user, pass, addr)
	attempt.done(err)
	return err
}

// bySecret takes a right secret even from an address with too many failures:
// it cannot be guessed, and nobody shall lock root out of his own head.
func (s *Service) bySecret(w http.ResponseWriter, r *http.Request, user, secret string) error {
	if s.secrets.take(user, secret) {
		return nil
	}
	attempt, wait := s.limits.begin(s.clientAddr(r), "")
	if attempt == nil {
		return slowDown(w, wait)
	}
	err := fault.New(fault.Unauthenticated, "The secret is not one that %s left at login.sock of this head within the last %d seconds, or it has been used.", user, oneTimeTTL/time.Second)
	attempt.done(err)
	return err
}

func slowDown(w http.ResponseWriter, wait time.Duration) error {
	seconds := int(math.Ceil(wait.Seconds()))
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	return fault.New(fault.TooMany, "Too many failed logins; try again in %d s.", seconds)
}

func (s *Service) refresh(w http.ResponseWriter, r *http.Request) error {
	token, err := bearer(r)
	if err != nil {
		return err
	}
	c, err := s.tokens.verify(token, refreshToken)
	if err != nil {
		return err
	}
	a, err := s.holder(c)
	if err != nil {
		return err
	}
	if len(s.grants.of(a.Roles)) == 0 {
		return noRole(a)
	}
	access, refresh := s.cfg.Access, s.cfg.Refresh
	if c.Bound {
		left := c.expires().Sub(s.cfg.Now())
		access, refresh = min(access, left), min(refresh, left)
	}
	set, err := s.issue(a, access, refresh, c.Bound)
	if err != nil {
		return err
	}
	noStore(w)
	return api.Data(w, granted{a.Name, a.Name, a.UID, set})
}

func (s *Service) whoami(w http.ResponseWriter, r *http.Request) error {
	c := api.CallerOf(r.Context())
	return api.Data(w, struct {
		UserID string   `json:"userid"`
		UID    string   `json:"uid"`
		Roles  []string `json:"roles"`
	}{c.Admin, c.UID, append([]string{}, c.Roles...)})
}

func (s *Service) mint(w http.ResponseWriter, r *http.Request) error {
	timeout, err := s.timeout(w, r)
	if err != nil {
		return err
	}
	caller, id := api.CallerOf(r.Context()), r.PathValue("id")
	a, ok := s.cfg.Admins.AdminByUID(id)
	if !ok {
		a, ok = s.cfg.Admins.AdminByName(id)
	}
	switch {
	case ok && a.UID == caller.UID:
	case !caller.Can(kind.AdminsMintTokens):
		return fault.New(fault.Forbidden, "Admin %s may make tokens for himself only: those for others need the permission %s.", caller.Admin, kind.AdminsMintTokens)
	case !ok:
		return fault.New(fault.NotFound, "No admin found for ID=%s", id)
	case !covers(s.grants.of(caller.Roles), s.grants.of(a.Roles)):
		return fault.New(fault.Forbidden, "Admin %s may do more than %s, who therefore cannot make tokens for him.", a.Name, caller.Admin)
	}
	access, refresh := s.cfg.Access, s.cfg.Refresh
	if timeout != 0 {
		access, refresh = timeout, timeout
	}
	set, err := s.issue(a, access, refresh, timeout != 0)
	if err != nil {
		return err
	}
	s.cfg.Log.Info("token made", "for", a.Name, "by", caller.Admin, "seconds", set.ExpiresIn)
	noStore(w)
	return api.Data(w, granted{caller.Admin, a.Name, a.UID, set})
}

// timeout is the optional lifetime in the body of a request to mint; 0 when absent.
func (s *Service) timeout(w http.ResponseWriter, r *http.Request) (time.Duration, error) {
	raw, err := api.Body(w, r)
	if err != nil || raw == nil {
		return 0, err
	}
	var in struct {
		Timeout *int64 `json:"timeout"`
	}
	if err := api.Strict(raw, &in); err != nil || in.Timeout == nil {
		return 0, err
	}
	if longest := int64(s.cfg.Minted / time.Second); *in.Timeout < 1 || *in.Timeout > longest {
		return 0, fault.Invalidf("timeout: %d is not a number of seconds from 1 to %d.", *in.Timeout, longest)
	}
	return time.Duration(*in.Timeout) * time.Second, nil
}
