package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
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
	good, err := tk.sign(full, accessToken, "", 1<<62, false)
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
