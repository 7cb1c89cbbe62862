package gitrepo

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// The services of git's smart HTTP protocol (gitprotocol-http).
const (
	uploadPack  = "git-upload-pack"  // for fetch and clone
	receivePack = "git-receive-pack" // for push
)

// Bounds on one request of a client.
const (
	serveTime   = time.Hour
	idle        = 2 * time.Minute // a client may stand still that long
	maxRequest  = 32 << 20        // bytes of a fetch's request, unpacked
	maxProtocol = 64              // bytes of the header Git-Protocol
)

// advertise answers the first request of a client: which branches there are.
func (s *Repos) advertise(w http.ResponseWriter, req *http.Request, service string) error {
	o, r, _, err := s.client(w, req, service)
	if err != nil {
		return err
	}
	// What is to be pushed need not wait for a remote that cannot be reached.
	if err := s.ready(req.Context(), o, r); err != nil && service == uploadPack {
		return err
	}
	return s.turn(req, func() error {
		ctx, cancel := context.WithTimeout(req.Context(), serveTime)
		defer cancel()
		protocol := protocolOf(req)
		header(w, service, "advertisement")
		out := api.Outgoing(w, idle)
		if service == receivePack || !strings.Contains(strings.Join(protocol, ""), "version=2") {
			line := "# service=" + service + "\n"
			if _, err := fmt.Fprintf(out, "%04x%s0000", len(line)+4, line); err != nil {
				return err
			}
		}
		_, err := s.git.do(ctx, run{dir: r.dir, stdout: out, env: protocol,
			args: []string{strings.TrimPrefix(service, "git-"), "--stateless-rpc", "--advertise-refs", r.bare()}})
		return err
	})
}

// client finds the repository that a client of git wants, and who it is.
func (s *Repos) client(w http.ResponseWriter, req *http.Request, service string) (*object.Gitrepo, *repo, string, error) {
	if service != receivePack {
		o, r, err := s.reader(w, req)
		return o, r, "", err
	}
	o, r, err := s.find(req.PathValue("id"))
	if err != nil {
		return nil, nil, "", err
	}
	admin, err := s.authenticate(w, req, mayWrite)
	if err != nil {
		return nil, nil, "", err
	}
	if m := remoteOf(o); m.mirror {
		return nil, nil, "", fault.New(fault.Forbidden,
			"The repository is a copy of %s, which the next synchronization makes it again: push there, or make that its upstream instead of its url.", m.shown())
	}
	return o, r, admin, nil
}

// protocolOf hands on the client's wish for a version of the protocol.
func protocolOf(req *http.Request) []string {
	p := req.Header.Get("Git-Protocol")
	if p == "" || len(p) > maxProtocol || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789=:") != "" {
		return nil
	}
	return []string{"GIT_PROTOCOL=" + p}
}

// mediaOf is the media type of a part of a service's conversation.
func mediaOf(service, part string) string { return "application/x-" + service + "-" + part }

func header(w http.ResponseWriter, service, part string) {
	w.Header().Set("Content-Type", mediaOf(service, part))
	w.Header().Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
}

// call answers the requests that follow: a fetch, or a push.
func (s *Repos) call(w http.ResponseWriter, req *http.Request) error {
	service := inner(req)
	if service != uploadPack && service != receivePack {
		return fault.New(fault.NotAllowed, "Only clients of git post here, to %s or %s.", uploadPack, receivePack)
	}
	if got, want := req.Header.Get("Content-Type"), mediaOf(service, "request"); got != want {
		return fault.Invalidf("The Content-Type must be %s.", want)
	}
	o, r, admin, err := s.client(w, req, service)
	if err != nil {
		return err
	}
	if err := s.ready(req.Context(), o, r); err != nil && service == uploadPack {
		return err
	}
	return s.turn(req, func() error {
		ctx, cancel := context.WithTimeout(req.Context(), serveTime)
		defer cancel()
		body, err := sent(w, req)
		if err != nil {
			return err
		}
		header(w, service, "result")
		rn := run{dir: r.dir, stdin: body, stdout: api.Outgoing(w, idle), env: protocolOf(req)}
		if service == receivePack {
			by := api.By(req) // the route is public, so that nobody was named yet
			by.Name = admin
			return s.receive(ctx, o, r, by, rn)
		}
		rn.stdin, rn.args = io.LimitReader(body, maxRequest), []string{"upload-pack", "--stateless-rpc", r.bare()}
		_, err = s.git.do(ctx, rn)
		return err
	})
}

// receive takes a push. The client's answer ends when the work tree is there too.
func (s *Repos) receive(ctx context.Context, o *object.Gitrepo, r *repo, by kind.Author, rn run) error {
	return s.change(ctx, r, func(ctx context.Context) error {
		room, err := r.room()
		if err != nil {
			return err
		}
		rn.args = []string{"-c", fmt.Sprintf("receive.maxInputSize=%d", room), "receive-pack", "--stateless-rpc", r.bare()}
		rn.disk, rn.env = room, append(rn.env, s.author(by.Name)...)
		before, err := r.refs(ctx)
		if err != nil {
			return err
		}
		if _, err := s.git.do(ctx, rn); err != nil {
			return err
		}
		after, err := r.refs(ctx)
		if err != nil || before == after {
			return err
		}
		s.opt.Log.Info("git push", "repository", r.uid, "admin", by.Name)
		if err := s.opt.Record(context.WithoutCancel(ctx), by, o, "push", map[string]string{"refs": moved(before, after)}); err != nil {
			return err
		}
		if err := r.remember(func(st *state) { st.Grown = true }); err != nil {
			return err
		}
		s.nudge()
		// The push has been answered: what goes wrong now is said by content.
		if err := errors.Join(r.settleHead(ctx, ""), r.checkout(ctx, false)); err != nil {
			s.opt.Log.Warn("work tree of a git repository", "repository", r.uid, "error", err)
		}
		return nil
	})
}

// moved tells what differs between two lists of refs.
func moved(before, after string) string {
	commits := func(list string) map[string]string {
		out := map[string]string{}
		for line := range strings.Lines(list) {
			commit, ref, _ := strings.Cut(strings.TrimSpace(line), " ")
			out[strings.TrimPrefix(ref, localPrefix)] = commit
		}
		return out
	}
	was, is := commits(before), commits(after)
	all := maps.Clone(was)
	maps.Copy(all, is)
	var out []string
	for _, ref := range slices.Sorted(maps.Keys(all)) {
		if was[ref] != is[ref] {
			out = append(out, ref+" "+brief(was[ref], is[ref]))
		}
	}
	return strings.Join(out, ", ")
}

// refs is everything that a push can change, as one text.
func (r *repo) refs(ctx context.Context) (string, error) {
	return r.git.text(ctx, r.bare(), "for-each-ref", "--format=%(objectname) %(refname)")
}

// sent is the body of a request, which clients may compress.
func sent(w http.ResponseWriter, req *http.Request) (io.Reader, error) {
	body := api.Incoming(w, req.Body, idle)
	switch req.Header.Get("Content-Encoding") {
	case "":
		return body, nil
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, fault.Invalidf("The body is not compressed as it says: %v.", err)
		}
		return z, nil
	}
	return nil, fault.Invalidf("The body is compressed by %q; only gzip is taken.", req.Header.Get("Content-Encoding"))
}
