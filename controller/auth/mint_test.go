package auth

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster/shared/kind"
	"muster/shared/object"
)

func (f *fixture) post(t *testing.T, path, token, body string) reply {
	t.Helper()
	return f.ask(t, http.DefaultClient, "POST", path, body, "Authorization", "Bearer "+token)
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

func TestMintedTokensDoNotOutliveTheirMaker(t *testing.T) {
	f := start(t, nil)
	access, _ := f.tokensOf(t, reader)
	short := f.post(t, "admin/reader/newtoken", access, `{"timeout":100}`).Data.Token
	f.post(t, "admin/reader/newtoken", short.Access, `{"timeout":101}`).want(t, "longer than itself", 403, "ends in 100 s")
	for _, body := range []string{"", `{"timeout":100}`} {
		r := f.post(t, "admin/reader/newtoken", short.Access, body)
		if r.status != 200 || r.Data.Token.ExpiresIn != 100 || r.Data.Token.RefreshExpires != 100 {
			t.Fatalf("%q: %s", body, r.raw)
		}
		f.pass(60 * time.Second)
		again := f.get(t, "newtoken", r.Data.Token.Refresh)
		if again.Data.Token.ExpiresIn != 40 || again.Data.Token.RefreshExpires != 40 {
			t.Fatalf("%q, refreshed: %s", body, again.raw)
		}
		f.post(t, "admin/reader/newtoken", again.Data.Token.Access, `{"timeout":41}`).want(t, "after a refresh", 403, "ends in 40 s")
		f.pass(-60 * time.Second)
	}
}

func TestLogoutEndsOneLogin(t *testing.T) {
	f := start(t, nil)
	access, refresh := f.tokensOf(t, nobody) // having no role keeps nobody in
	other, _ := f.tokensOf(t, nobody)
	f.post(t, "logout", "", "").want(t, "without token", 401, "holds no token")
	f.post(t, "logout", refresh, "").want(t, "with the refresh token", 401, "refresh token")
	f.set(Admin{UID: nobody.UID, Name: nobody.Name, Roles: reader.Roles})
	later := f.get(t, "newtoken", refresh).Data.Token
	f.set(nobody)
	f.post(t, "logout", later.Access, "").want(t, "logout", 200, "")
	f.set(Admin{UID: nobody.UID, Name: nobody.Name, Roles: reader.Roles})
	for what, token := range map[string]string{"first": access, "refreshed": later.Access} {
		f.get(t, "me", token).want(t, what, 401, "ended by a logout")
	}
	for what, token := range map[string]string{"first": refresh, "refreshed": later.Refresh} {
		f.get(t, "newtoken", token).want(t, what, 401, "ended by a logout")
	}
	f.post(t, "logout", access, "").want(t, "twice", 401, "ended by a logout")
	f.get(t, "me", other).want(t, "another login", 200, "")

	// It holds over a restart, also behind half a line.
	path := filepath.Join(f.dir, "ended-logins")
	if err := appendSynced(path, []byte(`{"login":"half`)); err != nil {
		t.Fatal(err)
	}
	f.post(t, "logout", other, "").want(t, "behind half a line", 200, "")
	again, err := New(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{access, other} {
		c, err := again.tokens.verify(token, accessToken)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.holder(c); err == nil {
			t.Error("a restart forgot a logout")
		}
	}
	// What has expired by itself is forgotten then.
	f.pass(DefaultMinted + time.Second)
	if again, err = New(f.cfg); err != nil || len(again.ended.until) != 0 {
		t.Errorf("after a year %d are remembered, %v", len(again.ended.until), err)
	}
	if raw, err := os.ReadFile(path); err != nil || len(raw) != 0 {
		t.Errorf("after a year the file holds %q, %v", raw, err)
	}
}

func TestEndedLoginsAreBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	e := &ended{path: filepath.Join(t.TempDir(), "ended"), now: func() time.Time { return now }, until: map[string]time.Time{}}
	for i := range maxEnded {
		e.until[fmt.Sprint(i)] = now.Add(time.Hour)
	}
	if err := e.add("one more", now.Add(time.Hour)); err == nil || len(e.until) != maxEnded {
		t.Errorf("%d are remembered, %v", len(e.until), err)
	}
	if err := e.add("7", now.Add(time.Hour)); err != nil {
		t.Errorf("one that is known: %v", err)
	}
	now = now.Add(time.Hour)
	if err := e.add("one more", now.Add(time.Hour)); err != nil || len(e.until) != 1 {
		t.Errorf("when the others are over: %d are remembered, %v", len(e.until), err)
	}
}

func TestRevokeEndsAll(t *testing.T) {
	f := start(t, nil)
	a1, r1 := f.tokensOf(t, reader)
	a2, _ := f.tokensOf(t, reader)
	fullToken, _ := f.tokensOf(t, full)
	minted := f.post(t, "admin/reader/newtoken", fullToken, `{"timeout":3600}`).Data.Token
	f.post(t, "admin/full/revoke", a1, "").want(t, "another's", 403, "AdminsWrite")
	f.post(t, "admin/nosuch/revoke", fullToken, "").want(t, "nobody's", 404, "nosuch")
	f.post(t, "admin/reader/revoke", a1, "").want(t, "one's own", 200, "")
	for _, token := range []string{a1, a2, minted.Access} {
		f.get(t, "me", token).want(t, "access", 401, "revoked")
	}
	for _, token := range []string{r1, minted.Refresh} {
		f.get(t, "newtoken", token).want(t, "refresh", 401, "revoked")
	}
	now, _ := f.tokensOf(t, reader)
	f.get(t, "me", now).want(t, "a new login", 200, "")
	f.post(t, "admin/"+reader.UID+"/revoke", fullToken, "").want(t, "by a full admin", 200, "")
	f.get(t, "me", now).want(t, "revoked by another", 401, "revoked")
	f.get(t, "me", fullToken).want(t, "who revoked", 200, "")
}

func TestAnotherNameIsAnotherPerson(t *testing.T) {
	f := start(t, nil)
	access, refresh := f.tokensOf(t, reader)
	renamed := reader
	renamed.Name = "somebody"
	f.set(renamed)
	f.get(t, "me", access).want(t, "renamed", 401, "is called somebody now")
	f.get(t, "newtoken", refresh).want(t, "renamed", 401, "is called somebody now")
}
