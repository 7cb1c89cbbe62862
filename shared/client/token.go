package client

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"muster/shared/fault"
)

// Tokens is a set as the head gave it, with the times at which they end by
// this machine's clock.
type Tokens struct {
	User       string    `json:"user"`
	Access     string    `json:"access_token"`
	Refresh    string    `json:"refresh_token"`
	Ends       time.Time `json:"ends"`
	RefreshEnd time.Time `json:"refresh_ends"`
}

// early is how long before its end a token is renewed, so that it does not end
// under way.
const early = 15 * time.Second

// published is the form in which the head gives a set.
type published struct {
	User   string `json:"user"`
	UserID string `json:"userid"`
	Token  struct {
		Access         string `json:"access_token"`
		ExpiresIn      int64  `json:"expires_in"` // seconds
		Refresh        string `json:"refresh_token"`
		RefreshExpires int64  `json:"refresh_expires_in"`
	} `json:"token"`
}

func (p published) tokens() Tokens {
	now := time.Now()
	user := p.User
	if user == "" {
		user = p.UserID
	}
	return Tokens{
		User: user, Access: p.Token.Access, Refresh: p.Token.Refresh,
		Ends:       now.Add(time.Duration(p.Token.ExpiresIn) * time.Second),
		RefreshEnd: now.Add(time.Duration(p.Token.RefreshExpires) * time.Second),
	}
}

// Tokens gives the set that the client uses now.
func (c *Client) Tokens() Tokens {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tokens
}

// SetTokens makes the client use another set.
func (c *Client) SetTokens(t Tokens) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens = t
}

// token gives an access token to send; "" when there is none and no way to get
// one: the head then says what is missing.
func (c *Client) token(ctx context.Context) (string, error) {
	t := c.Tokens()
	if t.Access != "" && time.Until(t.Ends) > early {
		return t.Access, nil
	}
	fresh, err := c.renew(ctx, t.Access)
	if err == nil && fresh == "" {
		fresh = t.Access
	}
	return fresh, err
}

// renew gets another access token than old, unless somebody else has done it
// meanwhile: with the refresh token, else by logging in. "" without any way.
func (c *Client) renew(ctx context.Context, old string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens.Access != old {
		return c.tokens.Access, nil
	}
	t, err := c.fresh(ctx)
	if err != nil || t.Access == "" {
		return "", err
	}
	c.tokens = t
	if c.save != nil {
		c.save(t)
	}
	return t.Access, nil
}

func (c *Client) fresh(ctx context.Context) (Tokens, error) {
	if c.tokens.Refresh != "" && time.Now().Before(c.tokens.RefreshEnd) {
		t, err := c.refresh(ctx, c.tokens.Refresh)
		if !fault.Is(err, fault.Unauthenticated) {
			return t, err
		}
	}
	if c.login == nil {
		return Tokens{}, nil
	}
	return c.login(ctx, c)
}

func (c *Client) refresh(ctx context.Context, token string) (Tokens, error) {
	return c.issue(ctx, request{method: "GET", path: Root + "/newtoken", bearer: token})
}

// LoginPassword logs in with a password, which the head has checked by PAM.
// The set is returned, and used only after SetTokens.
func (c *Client) LoginPassword(ctx context.Context, user, pass string) (Tokens, error) {
	return c.post(ctx, map[string]string{"user": user, "pass": pass})
}

// LoginSocket logs in as user by leaving a one-time secret at the head's Unix
// socket: root as any admin, others as themselves.
func (c *Client) LoginSocket(ctx context.Context, socket, user string) (Tokens, error) {
	secret, err := leaveSecret(ctx, socket, user)
	if err != nil {
		return Tokens{}, err
	}
	return c.post(ctx, map[string]string{"user": user, "secret": secret})
}

func (c *Client) post(ctx context.Context, in map[string]string) (Tokens, error) {
	body, err := encode(in)
	if err != nil {
		return Tokens{}, err
	}
	return c.issue(ctx, request{method: "POST", path: Root + "/login", body: rewindable(body), size: int64(len(body)), kind: "application/json", bare: true})
}

// issue sends a request whose answer is a set of tokens.
func (c *Client) issue(ctx context.Context, rq request) (Tokens, error) {
	resp, err := c.do(ctx, rq)
	if err != nil {
		return Tokens{}, err
	}
	defer resp.Body.Close()
	var p published
	if err := c.decode(resp, &p); err != nil {
		return Tokens{}, err
	}
	if p.Token.Access == "" {
		return Tokens{}, fmt.Errorf("%s let us in, but gave no token", c.base)
	}
	return p.tokens(), nil
}

// LoginSSH logs in with an SSH key: sign gives the armored signature of a
// message for a namespace, as ssh-keygen -Y sign does.
func (c *Client) LoginSSH(ctx context.Context, user string, sign func(namespace string, message []byte) (string, error)) (Tokens, error) {
	resp, err := c.do(ctx, request{method: "GET", path: Root + "/login/challenge?user=" + url.QueryEscape(user), bare: true})
	if err != nil {
		return Tokens{}, err
	}
	defer resp.Body.Close()
	var got struct{ Challenge, Namespace string }
	if err := c.decode(resp, &got); err != nil {
		return Tokens{}, err
	}
	// Never sign for another purpose, whatever a head says.
	if got.Challenge == "" || got.Namespace != loginNamespace {
		return Tokens{}, fmt.Errorf("the head at %s asks for a signature for %q, not for %q: it is not trusted with one", c.base, got.Namespace, loginNamespace)
	}
	signature, err := sign(got.Namespace, []byte(got.Challenge))
	if err != nil {
		return Tokens{}, err
	}
	return c.post(ctx, map[string]string{"user": user, "challenge": got.Challenge, "signature": signature})
}

// loginNamespace is the purpose of a signature that logs in.
const loginNamespace = "login@muster"

// Logout ends the login of the client's tokens at the head. Without tokens
// that are good for anything there is nothing to end.
func (c *Client) Logout(ctx context.Context) error {
	t := c.Tokens()
	token := t.Access
	if time.Until(t.Ends) <= early {
		fresh, err := c.refresh(ctx, t.Refresh)
		if err != nil {
			return err
		}
		token = fresh.Access
	}
	resp, err := c.do(ctx, request{method: "POST", path: Root + "/logout", bearer: token})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Reach says whether a head answers, nil when it does.
func (c *Client) Reach(ctx context.Context) error {
	resp, err := c.do(ctx, request{method: "GET", path: Root + "/cluster/time", bare: true})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
