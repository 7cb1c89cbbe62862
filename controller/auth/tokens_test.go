package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"muster/shared/kind"
	"muster/shared/object"
)

func TestReplyShapesAndRefresh(t *testing.T) {
	f := start(t, nil)
	if err := f.secrets.add("full", "0123456789abcdef"); err != nil {
		t.Fatal(err)
	}
	r := f.ask(t, http.DefaultClient, "POST", "login", `{"user":"full","secret":"0123456789abcdef"}`)
	set := r.Data.Token
	if set.ExpiresIn != 1200 || set.RefreshExpires != 2592000 || set.Access == set.Refresh || strings.Count(set.Access, ".") != 2 {
		t.Fatalf("login: %s", r.raw)
	}
	if r.header.Get("Cache-Control") != "no-store" {
		t.Error("tokens may be cached")
	}
	f.get(t, "newtoken", set.Access).want(t, "access token at newtoken", 401, "access token")
	f.get(t, "newtoken", "").want(t, "no token at newtoken", 401, "needs a token")
	for _, path := range []string{"read", "me", "whoami"} {
		f.get(t, path, set.Refresh).want(t, "refresh token at "+path, 401, "refresh token")
	}
	r = f.get(t, "newtoken", set.Refresh)
	if d := r.Data; d.AuthorizedBy != "full" || d.UserID != "full" || d.UID != full.UID || d.Token.ExpiresIn != 1200 || d.Token.RefreshExpires != 2592000 {
		t.Fatalf("newtoken: %s", r.raw)
	}
	f.get(t, "write", r.Data.Token.Access).want(t, "refreshed", 200, "")
	f.get(t, "write", set.Access).want(t, "the former one", 200, "")
	if r = f.get(t, "whoami", set.Access); r.Data.UserID != "full" || r.Data.UID != full.UID || len(r.Data.Roles) != 2 {
		t.Fatalf("whoami: %s", r.raw)
	}
}

func TestTokensLiveExactlyAsLongAsTold(t *testing.T) {
	f := start(t, nil)
	access, refresh := f.tokensOf(t, full)
	f.get(t, "me", access).want(t, "new", 200, "")
	f.pass(20*time.Minute - 10*time.Millisecond)
	f.get(t, "me", access).want(t, "before its end", 200, "")
	f.pass(10 * time.Millisecond)
	f.get(t, "me", access).want(t, "at its end", 401, "expired")
	f.get(t, "newtoken", refresh).want(t, "refresh", 200, "")
	f.pass(30 * 24 * time.Hour)
	f.get(t, "newtoken", refresh).want(t, "refresh at its end", 401, "expired")
}

// parts takes a token apart and makes others of it.
func parts(token string) (header, payload, signature string) {
	p := strings.Split(token, ".")
	return p[0], p[1], p[2]
}

func TestForgeries(t *testing.T) {
	f := start(t, nil)
	access, refresh := f.tokensOf(t, reader)
	h, p, sig := parts(access)
	_, rp, _ := parts(refresh)
	b64 := base64.RawURLEncoding
	claims := jwt.MapClaims{"sub": full.UID, "name": "full", "kind": "access", "exp": f.now().Add(time.Hour).Unix()}
	sign := func(m jwt.SigningMethod, c jwt.Claims, key any) string {
		s, err := jwt.NewWithClaims(m, c).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := b64.DecodeString(p)
	promoted := b64.EncodeToString([]byte(strings.ReplaceAll(string(payload), reader.UID, full.UID)))
	const bad, malformed = "bad signature", "malformed"
	for what, c := range map[string]struct{ token, reason string }{
		"alg none":            {sign(jwt.SigningMethodNone, claims, jwt.UnsafeAllowNoneSignatureType), bad},
		"alg None":            {b64.EncodeToString([]byte(`{"alg":"None","typ":"JWT"}`)) + "." + p + ".", bad},
		"RS256":               {sign(jwt.SigningMethodRS256, claims, rsaKey), bad},
		"HS512, our secret":   {sign(jwt.SigningMethodHS512, claims, f.tokens.secret), bad},
		"another secret":      {sign(jwt.SigningMethodHS256, claims, make([]byte, 32)), bad},
		"empty secret":        {sign(jwt.SigningMethodHS256, claims, []byte{}), bad},
		"another's payload":   {h + "." + promoted + "." + sig, bad},
		"refresh as access":   {h + "." + rp + "." + sig, bad},
		"no signature":        {h + "." + p + ".", bad},
		"cut signature":       {access[:len(access)-1], bad},
		"padded":              {access + "=", bad},
		"no kind":             {sign(jwt.SigningMethodHS256, jwt.MapClaims{"sub": full.UID, "exp": f.now().Add(time.Hour).Unix()}, f.tokens.secret), malformed},
		"no end":              {sign(jwt.SigningMethodHS256, jwt.MapClaims{"sub": full.UID, "kind": "access"}, f.tokens.secret), malformed},
		"a kind of its own":   {sign(jwt.SigningMethodHS256, jwt.MapClaims{"sub": full.UID, "kind": "x", "exp": f.now().Add(time.Hour).Unix()}, f.tokens.secret), "x token"},
		"two parts":           {h + "." + p, malformed},
		"garbage":             {"garbage", malformed},
		"three dots":          {"...", malformed},
		"not base64":          {"!!.??.~~", malformed},
		"far too long":        {strings.Repeat("a", maxToken+1), malformed},
		"header is not JSON":  {b64.EncodeToString([]byte("{")) + "." + p + "." + sig, malformed},
		"payload is not JSON": {h + "." + b64.EncodeToString([]byte("[1]")) + "." + sig, malformed},
	} {
		for range 2 { // a refused token must not be remembered as a good one
			f.get(t, "me", c.token).want(t, what, 401, c.reason)
		}
	}
	// A last character with other unused bits decodes to the same bytes.
	for _, last := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		if other := access[:len(access)-1] + string(last); other != access {
			f.get(t, "me", other).want(t, "last character "+string(last), 401, "bad signature")
		}
	}
	f.get(t, "me", access).want(t, "the real one", 200, "")
}

func TestMinting(t *testing.T) {
	f := start(t, nil)
	fullToken, _ := f.tokensOf(t, full)
	readerToken, _ := f.tokensOf(t, reader)
	mint := func(token, id, body string) reply {
		return f.ask(t, http.DefaultClient, "POST", "admin/"+id+"/newtoken", body, "Authorization", "Bearer "+token)
	}
	r := mint(fullToken, reader.UID, `{"timeout":5}`)
	if d := r.Data; d.AuthorizedBy != "full" || d.UserID != "reader" || d.UID != reader.UID || d.Token.ExpiresIn != 5 || d.Token.RefreshExpires != 5 {
		t.Fatalf("minted: %s", r.raw)
	}
	f.get(t, "read", r.Data.Token.Access).want(t, "minted", 200, "")
	f.get(t, "write", r.Data.Token.Access).want(t, "minted for a reader", 403, "NodesWrite")
	f.pass(3 * time.Second)
	more := f.get(t, "newtoken", r.Data.Token.Refresh)
	if more.status != 200 || more.Data.Token.ExpiresIn != 2 || more.Data.Token.RefreshExpires != 2 {
		t.Fatalf("a bounded set outgrew its bound: %s", more.raw)
	}
	f.pass(2 * time.Second)
	f.get(t, "read", r.Data.Token.Access).want(t, "minted, over", 401, "expired")
	f.get(t, "read", more.Data.Token.Access).want(t, "refreshed, over", 401, "expired")
	f.get(t, "newtoken", more.Data.Token.Refresh).want(t, "refresh, over", 401, "expired")

	if r = mint(readerToken, "reader", ""); r.Data.Token.ExpiresIn != 1200 || r.Data.Token.RefreshExpires != 2592000 {
		t.Errorf("for oneself without timeout: %s", r.raw)
	}
	year := int64(DefaultMinted / time.Second)
	mint(readerToken, "reader", fmt.Sprintf(`{"timeout":%d}`, year)).want(t, "the longest", 200, "")
	for _, body := range []string{`{"timeout":0}`, `{"timeout":-5}`, `{"timeout":true}`, `{"timeout":1.5}`, `{"timeout":"60"}`, `{"timeout":9e99}`,
		fmt.Sprintf(`{"timeout":%d}`, year+1), `{"timeout":[1]}`, `[]`, `"x"`, `{"timeout":1,"timeout":2}`, `{`} {
		mint(readerToken, "reader", body).want(t, body, 400, "")
	}
	mint(readerToken, "reader", `{"time":1}`).want(t, "unknown key", 400, "Unhandled parameter(s): time")
	mint(readerToken, "full", "").want(t, "reader for full", 403, "himself only")
	mint(readerToken, "norole", "").want(t, "reader for another", 403, "himself only")
	mint(readerToken, "nosuch", "").want(t, "reader for none", 403, "himself only")
	mint(fullToken, "nosuch", "").want(t, "full for none", 404, "No admin found for ID=nosuch")
	mint(fullToken, "norole", "").want(t, "full for one without roles", 200, "")

	// One who may mint but holds less than the target.
	minter := reader
	minter.Roles = []string{object.RoleAuthUser, string(kind.AdminsMintTokens)}
	f.set(minter)
	mint(readerToken, "full", "").want(t, "for a more powerful one", 403, "may do more")
	mint(readerToken, "norole", "").want(t, "for a less powerful one", 200, "")
}

func TestCacheIsBounded(t *testing.T) {
	l := newLRU[int, int](3)
	for i := range 10 {
		l.put(i, i)
		l.get(7)
	}
	if _, ok := l.get(7); !ok || len(l.at) != 3 || l.order.Len() != 3 {
		t.Fatalf("%d entries, 7 kept: %v", len(l.at), ok)
	}
}

func FuzzToken(f *testing.F) {
	tk := newTokens(make([]byte, 32), "h", time.Now)
	good, err := tk.sign(full, accessToken, 1<<62, false)
	if err != nil {
		f.Fatal(err)
	}
	h, p, s := parts(good)
	for _, seed := range []string{good, h + "." + p + ".", "..", "", h + "." + s + "." + p, "eyJhbGciOiJub25lIn0." + p + "."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		c, err := tk.verify(token, accessToken)
		if err != nil {
			return
		}
		dot := strings.LastIndexByte(token, '.')
		mac := hmac.New(sha256.New, tk.secret)
		mac.Write([]byte(token[:max(dot, 0)]))
		if token[dot+1:] != base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) {
			t.Fatalf("%q was accepted as %+v", token, c)
		}
	})
}
