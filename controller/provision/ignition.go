package provision

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/coreos/butane/config"
	"github.com/coreos/butane/config/common"
	parser "github.com/coreos/ignition/v2/config"
	"github.com/coreos/vcontext/report"

	"muster/shared/fault"
	"muster/shared/object"
)

func (p *Provision) getIgnition(w http.ResponseWriter, r *http.Request) error {
	o, err := p.opt.Objects.Find(object.KindNode, r.PathValue("id"))
	if err != nil {
		return err
	}
	n := o.(*object.Node)
	where := object.Attribute(p.opt.Objects.Look(), n, object.AttrIgnition)
	if where == "" {
		return fault.New(fault.NotFound, "The node %s has no attribute %s, which says where its Ignition configuration is.", n.Name, object.AttrIgnition)
	}
	text, fetched, err := p.configuration(r, n, where)
	if err != nil {
		return err
	}
	text, err = ignitionOf(text)
	switch {
	case err != nil && fetched: // what another server answers is told to nobody
		return fault.New(fault.Conflict, "What %s gives is no valid Ignition configuration; check it with ignition-validate or butane.", redacted(where))
	case err != nil:
		return fault.New(fault.Conflict, "The Ignition configuration %s is not valid: %v.", redacted(where), err)
	}
	return send(w, text)
}

// configuration gets what the attribute points to. What an admin keeps on the
// head is filled in; what comes from elsewhere is not, lest others choose which
// attributes get out.
func (p *Provision) configuration(r *http.Request, n *object.Node, where string) (text string, fetched bool, err error) {
	repo, name, inGit := p.inGit(r, where)
	switch {
	case inGit && p.opt.GitFile == nil:
		return "", false, fault.New(fault.Conflict, "%s names the gitrepo %q, and this head has none.", object.AttrIgnition, repo)
	case inGit:
		raw, err := p.opt.GitFile(r.Context(), repo, name, maxConfig)
		if err != nil {
			return "", false, err
		}
		text = string(raw)
	case strings.Contains(where, "://"):
		text, err = p.fetcher.get(r.Context(), where)
		return text, true, err
	default:
		name = where
		if text, err = p.files.read(where); err != nil {
			return "", false, err
		}
	}
	text, err = p.fill(r, n, name, text)
	return text, false, err
}

var gitURL = regexp.MustCompile(`^/api/v1/gitrepo/([^/]+)/(?:content|repo)/(.+)$`)

// inGit takes a reference to a file of a gitrepo apart.
func (p *Provision) inGit(r *http.Request, where string) (repo, path string, ok bool) {
	if rest, ok := strings.CutPrefix(where, "gitrepo:"); ok {
		repo, path, _ = strings.Cut(rest, "/")
		return repo, path, true
	}
	u, err := url.Parse(where)
	if err != nil || remote(u) != nil || !p.own(r, u.Host) {
		return "", "", false
	}
	if m := gitURL.FindStringSubmatch(u.Path); m != nil {
		return m[1], m[2], true
	}
	return "", "", false
}

// own says whether a URL's host is this head.
func (p *Provision) own(r *http.Request, host string) bool {
	if u, err := url.Parse(p.root(r)); err == nil && strings.EqualFold(u.Host, host) {
		return true
	}
	name, _, _ := strings.Cut(host, ":")
	for _, key := range []string{"name", "fqdn", "ip"} {
		if v, ok := p.opt.Head()[key].(string); ok && v != "" && strings.EqualFold(v, name) {
			return true
		}
	}
	return false
}

// ignitionOf gives a configuration as Ignition takes it: Butane is translated,
// everything is checked.
func ignitionOf(text string) (string, error) {
	raw := []byte(text)
	if !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
		// No FilesDir: a configuration must not take other files of the head along.
		out, rep, err := config.TranslateBytes(raw, common.TranslateBytesOptions{Raw: true})
		if err != nil || rep.IsFatal() {
			return "", reasons(err, rep)
		}
		raw = out
	}
	if _, rep, err := parser.Parse(raw); err != nil || rep.IsFatal() {
		return "", reasons(err, rep)
	}
	return string(raw), nil
}

// maxReasons bounds how much of a report is told.
const maxReasons = 5

func reasons(err error, r report.Report) error {
	var out []string
	for _, e := range r.Entries {
		if e.Kind.IsFatal() && len(out) < maxReasons {
			out = append(out, strings.ReplaceAll(e.String(), "\n", " "))
		}
	}
	if len(out) == 0 && err != nil {
		return err
	}
	return errors.New(strings.Join(out, "; "))
}

func redacted(where string) string {
	if u, err := url.Parse(where); err == nil {
		return u.Redacted()
	}
	return where
}

func (p *Provision) getIgnitionBinary(w http.ResponseWriter, r *http.Request) error {
	if p.opt.Ignition == "" {
		return fault.New(fault.NotFound, "This head has no ignition binary: name one with --ignition (or the key ignition of its configuration) and restart it.")
	}
	f, err := os.Open(p.opt.Ignition)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "The ignition binary %s, which this head is configured with, is not there: install it.", p.opt.Ignition)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fault.New(fault.NotFound, "The ignition binary %s, which this head is configured with, is no file.", p.opt.Ignition)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}
