package auth

import (
	"context"
	"crypto/rand"
	"errors"
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
		{Method: "POST", Path: "/api/v1/login", Permission: kind.Public, Handler: s.login, Body: credentials{}, Answer: loggedIn{},
			Doc: "Log in with `user` and `pass` (checked by PAM on this head), or with `user` and `secret` (left at login.sock within the last 60 s), or with `user`, `challenge` and `signature` (by one of the admin's SSH keys); gives an access and a refresh token."},
		{Method: "GET", Path: "/api/v1/login/challenge", Permission: kind.Public, Handler: s.challenge, Answer: challenged{},
			Query: []api.Param{{Name: "user", Doc: "name of the admin who is to sign"}},
			Doc:   "A challenge for ?user= to sign with an SSH key, good for one login within 60 s."},
		{Method: "GET", Path: "/api/v1/newtoken", Permission: kind.OnlyLocal, Handler: s.refresh, Answer: granted{},
			Doc: "A new set of tokens for the refresh token in the Authorization header; an access token is refused."},
		{Method: "GET", Path: "/api/v1/whoami", Permission: kind.LoggedIn, Handler: s.whoami, Answer: me{},
			Doc: "The admin whose token this is: `userid`, `uid`, `roles`."},
		{Method: "GET", Path: "/api/v1/roles", Permission: kind.LoggedIn, Handler: s.roles, Answer: allRoles{},
			Doc: "The roles and permissions that an admin's `roles` may list, and what each role allows."},
		{Method: "POST", Path: "/api/v1/admin/{id}/newtoken", Permission: kind.LoggedIn, Handler: s.mint, Body: mintOptions{}, Answer: granted{},
			Doc: "A set of tokens for a tool: for oneself, or by a full admin for another; `timeout` bounds the life of all of it, in seconds."},
		{Method: "POST", Path: "/api/v1/logout", Permission: kind.OnlyLocal, Handler: s.logout, Answer: api.Nothing{},
			Doc: "End the login that the access token in the Authorization header goes back to, with all its tokens."},
		{Method: "POST", Path: "/api/v1/admin/{id}/revoke", Permission: kind.LoggedIn, Handler: s.revoke, Answer: api.Nothing{},
			Doc: "End all tokens of an admin at once, on all heads: one's own, or as somebody who may write admins those of another."},
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

// credentials is the body of a login: the user, and one of three ways to show
// that it is him.
type credentials struct {
	User      string  `json:"user"`
	Pass      *string `json:"pass,omitempty"`
	Secret    *string `json:"secret,omitempty"`
	Challenge string  `json:"challenge,omitempty"`
	Signature *string `json:"signature,omitempty"`
}

// loggedIn is the answer to a login.
type loggedIn struct {
	User  string   `json:"user"`
	Token tokenSet `json:"token"`
}

// me is who asks.
type me struct {
	UserID string   `json:"userid"`
	UID    string   `json:"uid"`
	Roles  []string `json:"roles"`
}

// grant says what tokens to issue.
type grant struct {
	access, refresh time.Duration
	login           string // that they belong to, "" for a new one
	bound           bool   // all that is ever got with them ends with them
}

// issue makes a set of tokens.
func (s *Service) issue(a Admin, g grant) (set tokenSet, err error) {
	if g.login == "" {
		g.login = rand.Text()
	}
	if set.Access, err = s.tokens.sign(a, accessToken, g.login, g.access, g.bound); err != nil {
		return set, fmt.Errorf("signing a token: %w", err)
	}
	if set.Refresh, err = s.tokens.sign(a, refreshToken, g.login, g.refresh, g.bound); err != nil {
		return set, fmt.Errorf("signing a token: %w", err)
	}
	set.ExpiresIn, set.RefreshExpires = int64(g.access/time.Second), int64(g.refresh/time.Second)
	return set, nil
}

// noStore keeps tokens out of caches (RFC 6749 §5.1).
func noStore(w http.ResponseWriter) { w.Header().Set("Cache-Control", "no-store") }

func (s *Service) login(w http.ResponseWriter, r *http.Request) error {
	var in credentials
	if err := api.Decode(w, r, &in); err != nil {
		return err
	}
	if n := given(in.Pass) + given(in.Secret) + given(in.Signature); n != 1 || (in.Challenge != "") != (in.Signature != nil) {
		return fault.Invalidf("Give either `pass` (the password) or `secret` (the one-time secret left at login.sock) beside `user`, or `challenge` (from GET /api/v1/login/challenge) and `signature` (by an SSH key).")
	}
	if err := checkUser(in.User); err != nil {
		return fault.Invalidf("Cannot log in: %v.", err)
	}
	var err error
	switch {
	case in.Pass != nil:
		err = s.byPassword(w, r, in.User, *in.Pass)
	case in.Secret != nil:
		err = s.bySecret(w, r, in.User, *in.Secret)
	default:
		err = s.bySSH(w, r, in.User, in.Challenge, *in.Signature)
	}
	if err != nil {
		s.cfg.Log.Info("login refused", "user", in.User, "from", s.clientAddr(r), "reason", err)
		if !fault.Is(err, fault.TooMany) { // who only knocks must not fill the trail
			s.record(r, in.User, "login refused", map[string]string{"reason": fault.Of(err).Reason})
		}
		return err
	}
	a, ok := s.cfg.Admins.AdminByName(in.User)
	if !ok {
		return fault.New(fault.Forbidden, "%s is a user of the operating system but no admin of muster: a full admin can change that with POST /api/v1/admins.", in.User)
	}
	set, err := s.issue(a, grant{access: s.cfg.Access, refresh: s.cfg.Refresh})
	if err != nil {
		return err
	}
	how := "password"
	if in.Secret != nil {
		how = "local socket"
	} else if in.Signature != nil {
		how = "SSH key"
	}
	s.record(r, a.Name, "login", map[string]string{"by": how})
	noStore(w)
	return api.Data(w, loggedIn{a.Name, set})
}

// record notes something in the audit trail. That it could not be noted must
// not lock the admins out who could see to it.
func (s *Service) record(r *http.Request, admin, action string, detail map[string]string) {
	if s.cfg.Record == nil {
		return
	}
	by := kind.Author{Name: admin, From: s.clientAddr(r).String()}
	if err := s.cfg.Record(context.WithoutCancel(r.Context()), by, action, detail); err != nil {
		s.cfg.Log.Error("not in the audit trail", "action", action, "admin", admin, "error", err)
	}
}

func given(s *string) int {
	if s == nil {
		return 0
	}
	return 1
}

func (s *Service) byPassword(w http.ResponseWriter, r *http.Request, user, pass string) error {
	addr := s.clientAddr(r)
	attempt, wait := s.limits.begin(addr, user)
	if attempt == nil {
		return slowDown(w, wait)
	}
	err := s.passwords.check(r.Context(), user, pass, addr)
	attempt.done(err)
	if cause := errors.Unwrap(err); cause != nil {
		s.cfg.Log.Warn("a password could not be checked properly", "user", fmt.Sprintf("%.64s", user), "address", addr, "cause", cause)
	}
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
	g := grant{access: s.cfg.Access, refresh: s.cfg.Refresh, login: c.login(), bound: c.Bound}
	if c.Bound {
		left := c.expires().Sub(s.cfg.Now())
		g.access, g.refresh = min(g.access, left), min(g.refresh, left)
	}
	set, err := s.issue(a, g)
	if err != nil {
		return err
	}
	noStore(w)
	return api.Data(w, granted{a.Name, a.Name, a.UID, set})
}

func (s *Service) whoami(w http.ResponseWriter, r *http.Request) error {
	c := api.CallerOf(r.Context())
	return api.Data(w, me{c.Admin, c.UID, append([]string{}, c.Roles...)})
}
