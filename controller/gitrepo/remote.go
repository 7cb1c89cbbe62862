package gitrepo

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/object"
)

// remote is what a repository is synchronized with.
type remote struct {
	url      string
	mirror   bool // the repository is a copy of it
	confined bool // whoever named it must not send the head to itself
}

func remoteOf(o *object.Gitrepo) remote {
	u, mirror := o.Remote()
	return remote{u, mirror, o.Confined && !object.LocalURL(u)}
}

// shown is how to speak of it.
func (m remote) shown() string { return object.HidePassword(m.url) }

// print tells one remote from another without keeping its password.
func (m remote) print() string {
	if m.url == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(fmt.Sprintf("%t %s", m.mirror, m.url)))
	return hex.EncodeToString(sum[:16])
}

// env tells git the remote: not on its command line, which every user of the
// head can see, and the password not in the URL, which git hands on to a
// command line of its own. more is added to the configuration.
func (m remote) env(more ...[2]string) []string {
	config := append([][2]string{{"remote.origin.url", m.url}}, more...)
	allowed := "https:http:ssh:git"
	if object.LocalURL(m.url) {
		allowed = "file"
	}
	if u, err := url.Parse(m.url); err == nil && u.User != nil && strings.HasPrefix(u.Scheme, "http") {
		password, _ := u.User.Password()
		login := u.User.Username() + ":" + password
		u.User = nil
		config[0][1] = u.String()
		config = append(config, [2]string{"http.extraHeader", "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(login))})
	}
	env := []string{"GIT_ALLOW_PROTOCOL=" + allowed, fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(config))}
	for i, c := range config {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, c[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, c[1]))
	}
	return env
}

// fetchTime bounds one conversation with a remote.
const fetchTime = time.Hour

// fetch brings what the remote has; branches of the repository stay as they are.
func (r *repo) fetch(ctx context.Context, m remote) error {
	room, err := r.room()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	args := []string{"fetch", "--quiet", "--prune", "--no-auto-gc", "--no-write-fetch-head", "--no-recurse-submodules"}
	specs := []string{"+" + localPrefix + "*:" + remotePrefix + "*"}
	if m.mirror { // the remote's tags are the truth; elsewhere only new ones follow
		args, specs = append(args, "--force"), append(specs, "+refs/tags/*:refs/tags/*")
	}
	args = append(append(args, "origin"), specs...)
	env, err := r.git.towards(limited, m)
	if err != nil {
		return err
	}
	r.dirty = true // until it is known to have ended by itself
	_, err = r.git.do(limited, run{dir: r.bare(), args: args, env: env, disk: room})
	if err == nil {
		r.dirty = false
		return nil
	}
	if tidyErr := r.tidy(); tidyErr == nil {
		r.dirty = false
	}
	return m.explain(ctx, limited, err, room)
}

// explain turns git's error about a remote into one for an admin.
func (m remote) explain(ctx, limited context.Context, err error, room int64) error {
	var f *failure
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil:
		return fault.New(fault.Timeout, "%s did not send everything within %s.", m.shown(), fetchTime)
	case !errors.As(err, &f), fault.Is(err, fault.Full):
		return err
	case m.confined && redirected.MatchString(f.stderr):
		return fault.New(fault.Conflict, "%s redirects, which is followed only where an admin with %s named the remote: write the address that it leads to.", m.shown(), object.RoleFullAdmin)
	case strings.Contains(f.stderr, "signal 25") || strings.Contains(f.stderr, "File too large"):
		return fault.New(fault.Full, "%s sends more than the %d MiB that there is room for.", m.shown(), room>>20)
	}
	return &fault.Error{Code: fault.Upstream, Reason: fmt.Sprintf("%s cannot be fetched: %s", m.shown(), f.stderr), Err: err}
}

// defaultBranch asks the remote which branch its HEAD is, "" where it does not
// say: that is only a preference.
func (r *repo) defaultBranch(ctx context.Context, m remote) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	env, err := r.git.towards(ctx, m)
	if err != nil {
		return ""
	}
	out, err := r.git.do(ctx, run{dir: r.bare(), args: []string{"ls-remote", "--symref", "origin", "HEAD"}, env: env})
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	ref, ok := strings.CutPrefix(line, "ref: "+localPrefix)
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(ref, "\t")
	return name
}
