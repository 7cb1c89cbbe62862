// Package auth says who asks and what they may do: tokens, roles, the ways to
// log in, and the recognition of nodes and heads by certificate and address.
//
// Tokens say only who somebody is; what they may do is looked up on every
// request, so a changed role or a deleted admin takes effect at once. They end
// with a logout (all that go back to one login, on this head), by revocation
// (all of an admin, on every head) or when the admin gets another name. The
// package stores no admins and no nodes: it asks the interfaces below. It
// must not decide anything about a kind beyond its permissions, and passwords
// never leave it except to the helper that asks PAM.
//
// # Login with an SSH key
//
// The public key is among the admin's `keys`, a line as in authorized_keys,
// without options. Ed25519, ECDSA and RSA (from 2048 bits, with SHA-2) are
// taken, and keys on FIDO tokens, which must be touched.
//
//	GET /api/v1/login/challenge?user=NAME
//	→ {"challenge": TEXT, "namespace": "login@muster", "expires_in": 60}
//
// The key signs TEXT for that namespace in the format of OpenSSH's
// PROTOCOL.sshsig, and the armored signature is sent with it:
//
//	POST /api/v1/login {"user": NAME, "challenge": TEXT, "signature": "-----BEGIN SSH SIGNATURE-----\n…"}
//	→ as any other login
//
// A challenge is for one user at one head, for one login within a minute. With
// ssh-keygen, which asks ssh-agent where FILE is a public key:
//
//	printf %s "$TEXT" | ssh-keygen -Y sign -n login@muster -f FILE
package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"muster/controller/api"
	"muster/shared/kind"
	"muster/shared/object"
)

// Admin is what this package needs to know about one.
type Admin struct {
	UID   string
	Name  string // of the OS user
	Roles []string
	Keys  []string // public SSH keys in the form of authorized_keys
	// Generation goes up by one when all tokens of the admin are revoked.
	Generation int64
}

// Admins finds admins as they are at this moment. It is asked on every
// request, so it must answer from memory.
type Admins interface {
	AdminByName(name string) (Admin, bool)
	AdminByUID(uid string) (Admin, bool)
	// RevokeTokens raises the admin's generation, on all heads.
	RevokeTokens(ctx context.Context, by kind.Author, uid string) error
}

// Nodes recognises nodes. Addresses are unmapped and without a zone.
type Nodes interface {
	NodeByAddr(addr netip.Addr) (uid string, ok bool)
	// Enrolled says whether the node has a certificate; then its address
	// alone does not speak for it.
	Enrolled(uid string) bool
	// CertValid says whether the serial (lower-case hex, as big.Int.Text(16))
	// is that of the certificate which the node uses now. It is false for a
	// node that no longer exists and for one that has enrolled again.
	CertValid(uid, serial string) bool
}

// Heads says which addresses are those of heads: this one (see OwnAddress)
// and the registered ones.
type Heads interface {
	IsHead(addr netip.Addr) bool
}

// The lifetimes that a Config without others gets.
const (
	DefaultAccess  = 20 * time.Minute
	DefaultRefresh = 30 * 24 * time.Hour
	DefaultMinted  = 365 * 24 * time.Hour
)

// Config is what New needs. Admins, Nodes, Heads, Head, Rights, DataDir and Log must be set.
type Config struct {
	Head    string        // name of this head, the issuer in tokens
	DataDir string        // holds token-secret, cluster-password, ended-logins and login.sock; others must be able to pass through it (0711)
	Access  time.Duration // lifetime of access tokens; 0 for DefaultAccess
	Refresh time.Duration // lifetime of refresh tokens; 0 for DefaultRefresh
	Minted  time.Duration // the longest `timeout` that may be asked for; 0 for DefaultMinted

	Admins Admins
	Nodes  Nodes
	Heads  Heads

	// Rights is what the roles allow.
	Rights *object.Rights

	// TrustedProxies are those whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	// Helper is the path of muster-pam; empty for the one beside this program.
	Helper string

	// Record notes in the audit trail what somebody did or tried: "login", "login
	// refused", …. nil for no record.
	Record func(ctx context.Context, by kind.Author, action string, detail map[string]string) error

	Now func() time.Time // nil for time.Now
	Log *slog.Logger
}

// Service is the authentication of one head. It is an api.Authenticator.
type Service struct {
	cfg       Config
	tokens    *tokens
	ended     *ended
	grants    *grants
	limits    *limiter
	secrets   *secrets
	passwords *passwords

	challenges *challenges
	socket     *socket
}

var _ api.Authenticator = (*Service)(nil)

// New prepares the service and creates the head's signing secret on its first
// start. Nothing is served before the part of Socket runs.
func New(cfg Config) (*Service, error) {
	if cfg.Admins == nil || cfg.Nodes == nil || cfg.Heads == nil || cfg.Rights == nil || cfg.Log == nil || cfg.DataDir == "" {
		return nil, errors.New("auth: Admins, Nodes, Heads, Rights, Log and DataDir are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{{&cfg.Access, DefaultAccess}, {&cfg.Refresh, DefaultRefresh}, {&cfg.Minted, DefaultMinted}} {
		if *d.value == 0 {
			*d.value = d.def
		}
		if *d.value < time.Second {
			return nil, fmt.Errorf("a token cannot live for %v: give at least one second", *d.value)
		}
	}
	secret, err := loadSecret(filepath.Join(cfg.DataDir, "token-secret"))
	if err != nil {
		return nil, fmt.Errorf("the secret that signs tokens: %w", err)
	}
	if err := ensureClusterPassword(cfg.DataDir); err != nil {
		return nil, err
	}
	ended, err := openEnded(filepath.Join(cfg.DataDir, "ended-logins"), cfg.Now)
	if err != nil {
		return nil, fmt.Errorf("the list of ended logins: %w", err)
	}
	passwords, err := newPasswords(cfg.Helper)
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg:       cfg,
		tokens:    newTokens(secret, cfg.Head, cfg.Now),
		ended:     ended,
		grants:    newGrants(cfg.Rights),
		limits:    newLimiter(cfg.Now),
		secrets:   newSecrets(cfg.Now),
		passwords: passwords,
	}
	s.challenges = &challenges{tokens: s.tokens, life: rand.Text(), used: map[string]time.Time{}}
	s.socket = newSocket(filepath.Join(cfg.DataDir, "login.sock"), s.secrets, cfg.Log)
	return s, nil
}
