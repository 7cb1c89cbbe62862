package app

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"muster/controller/gitrepo"
	"muster/controller/registry"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// openGitrepos makes the part that hosts git repositories. Of the environment,
// git gets the proxies by which it reaches others.
func (h *Head) openGitrepos() (*gitrepo.Repos, error) {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if slices.Contains([]string{"http_proxy", "https_proxy", "all_proxy", "no_proxy"}, strings.ToLower(name)) {
			env = append(env, e)
		}
	}
	return gitrepo.New(gitrepo.Options{
		Objects: h.reg, Auth: h.auth, Dir: filepath.Join(h.cfg.Data, "gitrepos"), Head: h.name, Env: env, Heads: h.dir.taken, Log: h.log, Now: time.Now,
		Record: func(ctx context.Context, by kind.Author, o *object.Gitrepo, action string, detail map[string]string) error {
			return h.reg.Record(ctx, by, registry.Entry{Action: action, Kind: object.KindGitrepo, UID: o.UID, Name: o.Name, Detail: detail})
		},
	})
}

// gitFile reads a file for machines that install themselves. The repository is
// named by NAME, or NAME:BRANCH where it is not the branch that is checked out.
func (h *Head) gitFile(ctx context.Context, repo, path string, limit int64) ([]byte, error) {
	name, branch, _ := strings.Cut(repo, ":")
	o, err := h.reg.Find(object.KindGitrepo, name)
	if err != nil {
		return nil, err
	}
	if !o.(*object.Gitrepo).Public {
		return nil, fault.New(fault.Conflict, "The gitrepo %s is private, and what is asked for is given to everybody: muster gitrepo update %s --public true", name, name)
	}
	return h.git.ReadFile(ctx, name, branch, path, limit)
}
