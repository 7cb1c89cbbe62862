package gitrepo

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/object"
)

// comparison is one branch beside the remote's.
type comparison struct {
	Local        string `json:"local"`
	Remote       string `json:"remote"`
	Commit       string `json:"commit,omitempty"`
	RemoteCommit string `json:"remote_commit,omitempty"`
	Ahead        int    `json:"ahead"`  // commits that only the repository has
	Behind       int    `json:"behind"` // commits that only the remote has
}

// report answers the action status.
type report struct {
	result
	Remote   string       `json:"remote,omitempty"`
	Kind     string       `json:"kind"`            // "url", "upstream" or "none"
	Error    string       `json:"error,omitempty"` // why the remote could not be asked now
	Branches []comparison `json:"branches"`
	Last     *Last        `json:"last"`             // the last synchronization
	Next     float64      `json:"next,omitempty"`   // when the next one is due
	Synced   float64      `json:"synced,omitempty"` // when it last worked
}

func (s *Repos) status(w http.ResponseWriter, req *http.Request, o *object.Gitrepo, r *repo, mapping []object.Mapping) error {
	m := remoteOf(o)
	out := report{result: result{Action: actStatus}, Remote: m.shown(), Kind: "upstream"}
	switch {
	case m.url == "":
		out.Kind = "none"
	case m.mirror:
		out.Kind = "url"
	}
	err := s.change(req.Context(), r, func(ctx context.Context) (err error) {
		if m.url != "" {
			if err := r.fetch(ctx, m); ctx.Err() != nil {
				return err
			} else if err != nil {
				out.Error = fault.Of(plain(err)).Reason
			}
		}
		if out.Head, err = r.headBranch(ctx); err != nil {
			return err
		}
		if out.Commit, err = r.head(ctx); err != nil {
			return err
		}
		out.Branches, err = r.compare(ctx, job{action: actStatus, mapping: mapping, remote: m})
		return err
	})
	if err != nil {
		return err
	}
	st := r.known()
	out.Last, out.Synced = st.Last, st.Synced
	if at, ok := s.due(o, st, s.opt.Now()); ok {
		out.Next = max(0, seconds(at))
	}
	return api.Data(w, out)
}

// maxCompared bounds the branches whose commits are counted: each costs a run
// of git.
const maxCompared = 200

func (r *repo) compare(ctx context.Context, j job) ([]comparison, error) {
	local, err := r.branches(ctx, localPrefix)
	if err != nil {
		return nil, err
	}
	theirs, err := r.branches(ctx, remotePrefix)
	if err != nil {
		return nil, err
	}
	pairs := j.mapping
	if len(pairs) == 0 {
		names := maps.Clone(local)
		if j.remote.url != "" {
			maps.Copy(names, theirs)
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			pairs = append(pairs, object.Mapping{Local: name, Remote: name})
		}
	}
	out := []comparison{}
	for i, m := range pairs {
		c := comparison{Local: m.Local, Remote: m.Remote, Commit: local[m.Local].Commit}
		if j.remote.url != "" {
			c.RemoteCommit = theirs[m.Remote].Commit
		}
		if c.Commit != "" && c.RemoteCommit != "" && i < maxCompared {
			if c.Ahead, c.Behind, err = r.apart(ctx, c.Commit, c.RemoteCommit); err != nil {
				return nil, err
			}
		}
		out = append(out, c)
	}
	return out, nil
}
