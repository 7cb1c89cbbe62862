package auth

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/sshsig"
)

// SSHNamespace is the purpose for which a key signs a challenge, the -n of
// ssh-keygen: a signature made for anything else is refused.
const SSHNamespace = "login@muster"

const (
	challengeTTL = time.Minute
	// maxUsed bounds how many used challenges are remembered for that minute,
	// each of which somebody logged in with.
	maxUsed = 16 << 10
)

// challenges makes what keys sign. A challenge is signed by the head and says
// for whom it is, so that nothing is stored for those who only ask; once one
// was used it is remembered until it has expired.
type challenges struct {
	tokens *tokens
	// life is of this run of the program: what was used in an earlier one is
	// not known any more.
	life string

	mu   sync.Mutex
	used map[string]time.Time // by ID, until when it would be good
}

func (c *challenges) make(user string) (string, error) {
	return c.tokens.sign(Admin{UID: user, Name: user}, challengeToken, c.life, challengeTTL, false)
}

// check says whether the challenge is good for the user.
func (c *challenges) check(text, user string) (*claims, error) {
	cl, err := c.tokens.verify(text, challengeToken)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	_, used := c.used[cl.ID]
	c.mu.Unlock()
	switch {
	case cl.Subject != user || cl.Issuer != c.tokens.head || cl.Login != c.life:
		return nil, fault.New(fault.Unauthenticated, "The challenge is for another user, or from before the head's last start: get one with GET /api/v1/login/challenge.")
	case used:
		return nil, fault.New(fault.Unauthenticated, "The challenge has been used: each is good for one login.")
	}
	return cl, nil
}

// use makes the challenge good for nothing else; false when somebody was
// quicker.
func (c *challenges) use(cl *claims) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, used := c.used[cl.ID]; used {
		return false
	}
	if len(c.used) >= maxUsed {
		for id, end := range c.used {
			if !c.tokens.now().Before(end) {
				delete(c.used, id)
			}
		}
	}
	if len(c.used) >= maxUsed {
		return false
	}
	c.used[cl.ID] = cl.expires()
	return true
}

// challenged is the answer to who asks for a challenge.
type challenged struct {
	Challenge string `json:"challenge"`
	Namespace string `json:"namespace"`
	ExpiresIn int64  `json:"expires_in"` // seconds
}

func (s *Service) challenge(w http.ResponseWriter, r *http.Request) error {
	user := r.URL.Query().Get("user")
	if err := checkUser(user); err != nil {
		return fault.Invalidf("Cannot give a challenge: %v; ask with ?user=NAME.", err)
	}
	text, err := s.challenges.make(user)
	if err != nil {
		return err
	}
	noStore(w)
	return api.Data(w, challenged{text, SSHNamespace, int64(challengeTTL / time.Second)})
}

// bySSH counts failures for the address alone: a signature cannot be guessed,
// and nobody shall lock another out by his name.
func (s *Service) bySSH(w http.ResponseWriter, r *http.Request, user, challenge, signature string) error {
	attempt, wait := s.limits.begin(s.clientAddr(r), "")
	if attempt == nil {
		return slowDown(w, wait)
	}
	err := s.checkSSH(user, challenge, signature)
	attempt.done(err)
	return err
}

func (s *Service) checkSSH(user, challenge, signature string) error {
	c, err := s.challenges.check(challenge, user)
	if err != nil {
		return err
	}
	sig, err := sshsig.Parse(signature, SSHNamespace)
	if err != nil {
		return fault.New(fault.Unauthenticated, "The signature is not accepted: %v.", err)
	}
	// The same answer for an unknown admin, an unknown key and a bad signature.
	refused := fault.New(fault.Unauthenticated, "The signature is not that of the challenge by one of the keys of admin %s.", user)
	a, ok := s.cfg.Admins.AdminByName(user)
	if !ok {
		return refused
	}
	options, ok := stored(a.Keys, sig.Key)
	if !ok {
		return refused
	}
	// Who pipes the challenge through echo or a file signs a newline, too.
	if sig.Verify([]byte(challenge)) != nil && sig.Verify([]byte(challenge+"\n")) != nil {
		return refused
	}
	if len(options) > 0 {
		return fault.New(fault.Unauthenticated, "The key is stored with options (%s), which cannot be kept here: store it without them.", strings.Join(options, ","))
	}
	if !s.challenges.use(c) {
		return fault.New(fault.Unauthenticated, "The challenge has been used: each is good for one login.")
	}
	return nil
}

// stored finds a key among lines of authorized_keys.
func stored(lines []string, key ssh.PublicKey) (options []string, ok bool) {
	want := key.Marshal()
	for _, line := range lines {
		have, _, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err == nil && bytes.Equal(have.Marshal(), want) {
			return options, true
		}
	}
	return nil, false
}
