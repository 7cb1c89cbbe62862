package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/object"
)

// The actions of a synchronization.
const (
	actStatus   = "status"   // fetch, and compare
	actCheckout = "checkout" // make the work tree that of a branch, which is fetched if it is not there
	actReset    = "reset"    // make the branches those of the remote
	actPull     = "pull"     // take the remote's commits in, by a merge where both sides have some
	actRebase   = "rebase"   // put the repository's own commits on top of the remote's
)

var actions = []string{actStatus, actCheckout, actReset, actPull, actRebase}

// mergeTime bounds what follows a fetch.
const mergeTime = time.Hour

// job is one synchronization that is to be done.
type job struct {
	action  string
	mapping []object.Mapping // nil: all branches by their own names
	remote  remote
	author  []string // environment that names who does it
}

// result is what a synchronization did.
type result struct {
	Action   string   `json:"action"`
	Head     string   `json:"head"`   // the branch that is checked out
	Commit   string   `json:"commit"` // its newest commit, "" where there is none
	Branches []update `json:"branches"`
}

// detail is what the audit trail says of a synchronization.
func (r *result) detail(m remote) map[string]string {
	var did []string
	for _, b := range r.Branches {
		did = append(did, fmt.Sprintf("%s %s %s", b.Local, b.Result, brief(b.Before, b.After)))
	}
	return map[string]string{"action": r.Action, "remote": m.shown(), "head": r.Head, "branches": strings.Join(did, ", ")}
}

// brief tells from which commit to which a branch went.
func brief(before, after string) string {
	short := func(commit string) string { return commit[:min(len(commit), 12)] }
	if before == after {
		return short(after)
	}
	return short(before) + ".." + short(after)
}

// sync does a job that changes something: all of it, or nothing but what was
// fetched. Caller holds the lock.
func (r *repo) sync(ctx context.Context, j job) (*result, error) {
	if j.remote.url == "" && j.action != actCheckout {
		return nil, fault.New(fault.Conflict, "The repository has neither url nor upstream, so that there is nothing to %s from.", j.action)
	}
	if j.remote.url != "" {
		if err := r.fetch(ctx, j.remote); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, mergeTime)
	defer cancel()
	updates, err := r.plan(ctx, j)
	if err != nil {
		return nil, err
	}
	if err := r.apply(ctx, j.action, updates); err != nil {
		return nil, err
	}
	if err := r.follow(ctx, j); err != nil {
		return nil, err
	}
	if err := r.checkout(ctx, j.action == actCheckout); err != nil {
		return nil, err
	}
	out := &result{Action: j.action, Branches: updates}
	if out.Head, err = r.headBranch(ctx); err == nil {
		out.Commit, err = r.head(ctx)
	}
	return out, err
}

// follow points HEAD at the branch that is to be checked out.
func (r *repo) follow(ctx context.Context, j job) error {
	if j.action == actCheckout && len(j.mapping) > 0 {
		return r.setHead(ctx, j.mapping[0].Local)
	}
	if commit, err := r.head(ctx); err != nil || commit != "" {
		return err
	}
	wanted := ""
	if j.remote.url != "" {
		wanted = r.defaultBranch(ctx, j.remote)
	}
	for _, m := range j.mapping {
		if m.Remote == wanted {
			wanted = m.Local
			break
		}
	}
	return r.settleHead(ctx, wanted)
}

// plan says what a job does to each branch. Merges are made here, but no branch
// has them yet.
func (r *repo) plan(ctx context.Context, j job) ([]update, error) {
	local, err := r.branches(ctx, localPrefix)
	if err != nil {
		return nil, err
	}
	theirs, err := r.branches(ctx, remotePrefix)
	if err != nil {
		return nil, err
	}
	if len(theirs) == 0 && j.remote.url != "" && j.action != actCheckout { // rather a mistake than to be followed
		return nil, fault.New(fault.Conflict, "%s has no branches.", j.remote.shown())
	}
	mapping, err := j.pairs(theirs, local)
	if err != nil {
		return nil, err
	}
	out, conflicts := []update{}, []string{}
	for _, m := range mapping {
		u := update{Local: m.Local, Remote: m.Remote, Before: local[m.Local].Commit, After: theirs[m.Remote].Commit}
		if u.After == "" { // checkout of a branch that only the repository has
			u.Remote, u.After, u.Result = "", u.Before, "unchanged"
		} else if err := r.decide(ctx, j, &u); fault.Is(err, fault.Conflict) {
			conflicts = append(conflicts, err.Error())
		} else if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	if len(conflicts) > 0 {
		return nil, fault.New(fault.Conflict, "Nothing was changed: %s", strings.Join(conflicts, " "))
	}
	if j.remote.mirror && j.mapping == nil && j.action == actReset {
		for _, name := range slices.Sorted(maps.Keys(local)) {
			if _, ok := theirs[name]; !ok {
				out = append(out, update{Local: name, Before: local[name].Commit, Result: "deleted"})
			}
		}
	}
	return out, nil
}

// pairs gives the branches that a job is about.
func (j *job) pairs(theirs, local map[string]branch) ([]object.Mapping, error) {
	if j.mapping == nil {
		if j.action == actCheckout {
			return nil, nil
		}
		var out []object.Mapping
		for _, name := range slices.Sorted(maps.Keys(theirs)) {
			out = append(out, object.Mapping{Local: name, Remote: name})
		}
		return out, nil
	}
	for _, m := range j.mapping {
		_, here := local[m.Local]
		if _, ok := theirs[m.Remote]; !ok && !(here && j.action == actCheckout) {
			return nil, fault.New(fault.NotFound, "There is no branch %q at %s.", m.Remote, j.remote.where())
		}
	}
	return j.mapping, nil
}

// where is how to speak of a remote that there may not be.
func (m remote) where() string {
	if m.url == "" {
		return "this repository"
	}
	return m.shown()
}

// decide completes what is to become of one branch.
func (r *repo) decide(ctx context.Context, j job, u *update) error {
	switch {
	case u.Before == u.After:
		u.Result = "unchanged"
		return nil
	case u.Before == "":
		u.Result = "created"
		return nil
	case j.action == actCheckout:
		u.After, u.Result = u.Before, "unchanged"
		return nil
	case j.action == actReset:
		u.Result = "reset"
		return nil
	}
	ahead, behind, err := r.apart(ctx, u.Before, u.After)
	switch {
	case err != nil:
		return err
	case ahead == 0:
		u.Result = "fast-forwarded"
		return nil
	case behind == 0:
		u.After, u.Result = u.Before, "ahead"
		return nil
	}
	u.Result = map[string]string{actPull: "merged", actRebase: "rebased"}[j.action]
	u.After, err = r.combine(ctx, j, *u)
	return err
}

// combine merges or rebases in a work tree of its own, and gives the commit.
func (r *repo) combine(ctx context.Context, j job, u update) (commit string, err error) {
	for _, c := range []string{u.Before, u.After} {
		if err := r.measure(ctx, c); err != nil {
			return "", err
		}
	}
	room, err := r.room()
	if err != nil {
		return "", err
	}
	tree := r.temporary("merge")
	defer func() {
		_, pruneErr := r.git.do(context.WithoutCancel(ctx), run{dir: r.bare(), args: []string{"worktree", "prune"}})
		err = errors.Join(err, pruneErr)
	}()
	defer os.RemoveAll(tree)
	if _, err := r.git.do(ctx, run{dir: r.bare(), args: []string{"worktree", "add", "--quiet", "--detach", tree, u.Before}, disk: room}); err != nil {
		return "", err
	}
	args := []string{"merge", "--quiet", "--no-verify", "-m", fmt.Sprintf("Merge %s of %s into %s", u.Remote, j.remote.shown(), u.Local), u.After}
	if j.action == actRebase {
		args = []string{"rebase", "--quiet", u.After}
	}
	if _, err := r.git.do(ctx, run{dir: tree, args: args, env: j.author, disk: room}); err != nil {
		return "", r.conflict(ctx, tree, j, u, err)
	}
	return r.git.text(ctx, tree, "rev-parse", "--verify", "HEAD")
}

// conflict says which files stand in the way of a merge.
func (r *repo) conflict(ctx context.Context, tree string, j job, u update, cause error) error {
	out, err := r.git.do(ctx, run{dir: tree, args: []string{"diff", "--name-only", "--diff-filter=U", "-z"}})
	files := strings.Split(strings.Trim(string(out), "\x00"), "\x00")
	if err != nil || files[0] == "" {
		return cause
	}
	more := ""
	if len(files) > 10 {
		files, more = files[:10], fmt.Sprintf(" and %d more", len(files)-10)
	}
	return fault.New(fault.Conflict, "Branch %s and branch %s of %s change the same lines in %s%s; solve it in a clone and push, or use the action reset to give up what is only here.",
		u.Local, u.Remote, j.remote.shown(), readable(strings.Join(files, ", ")), more)
}
