package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"muster/controller/auth/keyfile"
	"muster/shared/fault"
)

const (
	secretSize  = 32       // bytes: the key size of HMAC-SHA-256 (RFC 7518 §3.2)
	maxToken    = 4 << 10  // bytes; ours have about 350
	cacheTokens = 16 << 10 // verified tokens remembered, about 300 bytes each
)

// The kinds of token. None does another's work. A challenge says only that the
// head made it, see challenges.
const (
	accessToken    = "access"
	refreshToken   = "refresh"
	challengeToken = "challenge"
)

// claims is what a token says. Subject is the admin's UID.
type claims struct {
	jwt.RegisteredClaims
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Millis is added to exp, which is in whole seconds: a token lives exactly
	// as long as the client was told.
	Millis int64 `json:"ms,omitempty"`
	// Bound makes everything that is got with this token end with it.
	Bound bool `json:"bound,omitempty"`
	// Login is the same in all tokens that go back to one login, however often
	// they were refreshed.
	Login string `json:"login,omitempty"`
	// Generation is the admin's when the token was made.
	Generation int64 `json:"gen,omitempty"`
}

// login names the login that a token goes back to; tokens of earlier versions
// stand for themselves.
func (c *claims) login() string {
	if c.Login == "" {
		return c.ID
	}
	return c.Login
}

func (c *claims) expires() time.Time {
	return c.ExpiresAt.Add(time.Duration(c.Millis) * time.Millisecond)
}

// tokens signs and verifies.
type tokens struct {
	secret []byte
	head   string
	now    func() time.Time
	parser *jwt.Parser

	mu    sync.Mutex
	known *lru[[sha256.Size]byte, *claims] // only tokens whose signature was good
}

func newTokens(secret []byte, head string, now func() time.Time) *tokens {
	return &tokens{
		secret: secret, head: head, now: now,
		// Expiry is checked below, for remembered tokens as for new ones.
		parser: jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation()),
		known:  newLRU[[sha256.Size]byte, *claims](cacheTokens),
	}
}

func loadSecret(path string) ([]byte, error) {
	secret, err := keyfile.LoadOrCreate(path, func() ([]byte, error) {
		b := make([]byte, secretSize)
		_, err := rand.Read(b)
		return b, err
	})
	if err == nil && len(secret) != secretSize {
		err = fmt.Errorf("%s holds %d bytes instead of %d: remove it and everybody logs in anew", path, len(secret), secretSize)
	}
	return secret, err
}

// sign makes a token of that kind for one login. For bound see claims.
func (t *tokens) sign(a Admin, kind, login string, ttl time.Duration, bound bool) (string, error) {
	now := t.now()
	end := now.Add(ttl)
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: t.head, Subject: a.UID, ID: rand.Text(),
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(end),
		},
		Name: a.Name, Kind: kind, Bound: bound, Login: login, Generation: a.Generation,
		Millis: int64(end.Nanosecond()) / int64(time.Millisecond),
	}).SignedString(t.secret)
}

// verify gives the claims of a token that is one of ours, of the wanted kind
// and not expired; else an Unauthenticated fault that names the cause.
func (t *tokens) verify(token, want string) (*claims, error) {
	if len(token) > maxToken {
		return nil, fault.New(fault.Unauthenticated, "The token is malformed: it is longer than %d bytes.", maxToken)
	}
	sum := sha256.Sum256([]byte(token))
	t.mu.Lock()
	c, ok := t.known.get(sum)
	t.mu.Unlock()
	if !ok {
		var err error
		if c, err = t.parse(token); err != nil {
			return nil, err
		}
		t.mu.Lock()
		t.known.put(sum, c)
		t.mu.Unlock()
	}
	switch now := t.now(); {
	case c.Kind != want && c.Kind == challengeToken:
		return nil, fault.New(fault.Unauthenticated, "This is a challenge, to be signed with an SSH key, and no token.")
	case c.Kind != want && want == accessToken:
		return nil, fault.New(fault.Unauthenticated, "This is a %s token: it is good only for GET /api/v1/newtoken; send the access token here.", c.Kind)
	case c.Kind != want && want == challengeToken:
		return nil, fault.New(fault.Unauthenticated, "This is an %s token and no challenge: get one with GET /api/v1/login/challenge.", c.Kind)
	case c.Kind != want:
		return nil, fault.New(fault.Unauthenticated, "This is an %s token: a new set is only given for the refresh token.", c.Kind)
	case !now.Before(c.expires()) && want == accessToken:
		return nil, fault.New(fault.Unauthenticated, "The access token expired at %s: get a new one from GET /api/v1/newtoken with the refresh token, or log in again.", at(c))
	case !now.Before(c.expires()) && want == challengeToken:
		return nil, fault.New(fault.Unauthenticated, "The challenge expired at %s: get another one.", at(c))
	case !now.Before(c.expires()):
		return nil, fault.New(fault.Unauthenticated, "The refresh token expired at %s: log in again.", at(c))
	}
	return c, nil
}

func at(c *claims) string { return c.expires().UTC().Format(time.RFC3339) }

// parse checks form and signature, not the time.
func (t *tokens) parse(token string) (*claims, error) {
	var c claims
	_, err := t.parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return t.secret, nil })
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed) && !t.readable(token):
		return nil, &fault.Error{Code: fault.Unauthenticated, Reason: "The token is malformed: it is not one that this head gave; log in again.", Err: err}
	case err != nil:
		return nil, &fault.Error{Code: fault.Unauthenticated, Reason: "The token has a bad signature: it is forged, or from another head or an earlier life of this one; log in again.", Err: err}
	case c.ExpiresAt == nil || c.Subject == "" || c.Kind == "":
		return nil, fault.New(fault.Unauthenticated, "The token is malformed: a claim is missing; log in again.")
	}
	return &c, nil
}

// readable says whether all but the signature has the right form.
func (t *tokens) readable(token string) bool {
	_, _, err := t.parser.ParseUnverified(token[:strings.LastIndexByte(token, '.')+1], &claims{})
	return err == nil
}
