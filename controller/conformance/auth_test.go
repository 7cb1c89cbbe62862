package conformance

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func sha1Of(s string) string {
	sum := sha1.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

// osUser makes a user of the operating system with a password, until the test
// ends.
func (c *check) osUser(pass string) (name string) {
	if out, err := exec.Command("id", "-u").Output(); err != nil || strings.TrimSpace(string(out)) != "0" {
		c.skip("it needs a user with a password, and only root can make one")
	}
	name = "mustert" + strconv.FormatInt(time.Now().UnixNano()%1_000_000_000, 36)
	out, err := exec.Command("useradd", "--no-create-home", name).CombinedOutput()
	c.must(err == nil, "useradd: %s", out)
	c.Cleanup(func() { exec.Command("userdel", name).Run() })
	set := exec.Command("chpasswd")
	set.Stdin = strings.NewReader(name + ":" + pass)
	out, err = set.CombinedOutput()
	c.must(err == nil, "chpasswd: %s", out)
	return name
}

// tokens says that an answer has a set of tokens of the usual lifetime.
func (a *answer) tokens() (access, refresh string) {
	t, _ := a.object()["token"].(map[string]any)
	access, _ = t["access_token"].(string)
	refresh, _ = t["refresh_token"].(string)
	for _, token := range []string{access, refresh} {
		head, _, _ := strings.Cut(token, ".")
		raw, err := base64.RawURLEncoding.DecodeString(head)
		if err != nil || strings.Count(token, ".") != 2 || !json.Valid(raw) {
			a.fail("%s: %.100q is no JWT", a.call, token)
		}
	}
	if !equal(t["expires_in"], `1200`) || !equal(t["refresh_expires_in"], `2592000`) || access == refresh {
		a.fail("%s: lifetimes or tokens are wrong in %s", a.call, show(t))
	}
	return access, refresh
}

// works says that an access token speaks for an admin, and a refresh token for nobody.
func (c *check) works(name, access, refresh string) {
	c.with(access).GET("/whoami").has("userid", show(name))
	c.with(refresh).GET("/whoami").refused(401)
}

func login(user, key, value string) string {
	return fmt.Sprintf(`{"user":%s,%q:%s}`, show(user), key, show(value))
}

func loginRows() []row {
	const pass = "Grüße @/%"
	return []row{
		{"POST", "/login", public, "by password, which PAM checks", func(c *check) {
			name := c.osUser(pass)
			c.anybody().POST("/login", login(name, "pass", pass)).refused(403) // no admin yet
			c.POST("/admins", `{"name":`+show(name)+`}`).uid()
			a := c.anybody().POST("/login", login(name, "pass", pass))
			access, refresh := a.tokens()
			a.has("user", show(name))
			c.works(name, access, refresh)
			c.anybody().POST("/login", login(name, "pass", "wrong")).refused(401)
			c.anybody().POST("/login", login("nobody-of-that-name", "pass", pass)).refused(401)
		}},
		{"POST", "/login", public, "on the head itself, by a one-time secret at the login socket", func(c *check) {
			secret := c.leave(c.operator)
			a := c.anybody().POST("/login", login(c.operator, "secret", secret))
			access, refresh := a.tokens()
			a.has("user", show(c.operator))
			c.works(c.operator, access, refresh)
			c.anybody().POST("/login", login(c.operator, "secret", secret)).refused(401)
			c.anybody().POST("/login", login(c.operator, "secret", "guessed")).refused(401)
		}},
		{"POST", "/login", public, "by an SSH key of the admin that signs a challenge", sshLogin},
		{"GET", "/newtoken", renewal, "a new set for the admin of a refresh token; an access token will not do", func(c *check) {
			a := c.with(c.refresh).GET("/newtoken")
			a.has("authorized_by", show(c.operator), "userid", show(c.operator), "uid", show(c.GET("/admin/" + c.operator).object()["uid"]))
			access, refresh := a.tokens()
			c.works(c.operator, access, refresh)
			c.with(c.refresh).GET("/newtoken").tokens() // the old one stays good
			c.with(c.token).GET("/newtoken").refused(401)
		}},
	}
}

// sshLogin signs the head's challenge with OpenSSH's own tool.
func sshLogin(c *check) {
	dir := c.TempDir()
	key := filepath.Join(dir, "key")
	out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "jo@desk", "-f", key).CombinedOutput()
	c.must(err == nil, "ssh-keygen: %v: %s", err, out)
	public, err := os.ReadFile(key + ".pub")
	c.must(err == nil, "%v", err)
	c.POST("/admins", `{"name":"signer"}`).uid()
	challenge := func() (text, namespace string) {
		o := c.anybody().GET("/login/challenge?user=signer").object()
		text, _ = o["challenge"].(string)
		namespace, _ = o["namespace"].(string)
		return text, namespace
	}
	sign := func(text, namespace string) string {
		cmd := exec.Command("ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key)
		cmd.Stdin = strings.NewReader(text)
		out, err := cmd.Output()
		c.must(err == nil, "ssh-keygen -Y sign: %v", err)
		return string(out)
	}
	send := func(text, signature string) *answer {
		return c.anybody().POST("/login", `{"user":"signer","challenge":`+show(text)+`,"signature":`+show(signature)+`}`)
	}
	text, namespace := challenge()
	send(text, sign(text, namespace)).refused(401) // no key is stored yet
	c.POST("/admin/signer/keys", show(strings.TrimSpace(string(public)))).done()
	text, namespace = challenge()
	signature := sign(text, namespace)
	send(text, sign(text, "file")).refused(401)
	a := send(text, signature)
	access, refresh := a.tokens()
	a.has("user", `"signer"`)
	c.works("signer", access, refresh)
	send(text, signature).refused(401) // once only
}

// whoRows are endpoints that say who asks.
func whoRows() []row {
	return []row{
		{"GET", "/whoami", token, "the admin who asks", func(c *check) {
			admin := c.GET("/admin/" + c.operator).object()
			c.GET("/whoami").has("userid", show(c.operator), "uid", show(admin["uid"]), "roles", show(admin["roles"]))
			c.tls().GET("/whoami").has("userid", show(c.operator))
		}},
		{"GET", "/whereami", token, "the node from whose address is asked", func(c *check) {
			c.POST("/nets", `{"first_ip":"127.69.0.10","ip_count":20,"mask_bits":24}`).uid()
			uid := c.POST("/nodes", `{"mac":"52:54:00:00:92:01"}`).uid()
			(&asker{check: c, as: c.token, from: "127.69.0.10"}).GET("/whereami").has("uid", show(uid), "name", `"n0"`)
			(&asker{check: c, as: c.token, from: "127.69.0.99"}).GET("/whereami").reasoned(404, "No node found for ID=127.69.0.99")
		}},
	}
}
