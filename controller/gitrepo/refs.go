package gitrepo

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"muster/shared/fault"
)

const (
	localPrefix  = "refs/heads/"
	remotePrefix = "refs/remotes/origin/"
)

// branch is a branch and its newest commit.
type branch struct {
	Name    string  `json:"name"`
	Commit  string  `json:"commit"`
	Author  string  `json:"author"`
	Subject string  `json:"subject"`
	Time    float64 `json:"time"` // of the commit, seconds since 1970
}

// branches lists those below a prefix by name, of the repository itself or of
// its remote as it was when last fetched.
func (r *repo) branches(ctx context.Context, prefix string) (map[string]branch, error) {
	const format = "%(objectname)%00%(refname)%00%(committerdate:unix)%00%(authorname)%00%(contents:subject)"
	raw, err := r.git.do(ctx, run{dir: r.bare(), args: []string{"for-each-ref", "--format=" + format, prefix}})
	if err != nil {
		return nil, err
	}
	out := map[string]branch{}
	for line := range bytes.Lines(raw) {
		f := strings.Split(strings.TrimSuffix(string(line), "\n"), "\x00")
		if len(f) != 5 {
			continue
		}
		at, _ := strconv.ParseFloat(f[2], 64) // a commit without a readable date is as old as can be
		name := strings.TrimPrefix(f[1], prefix)
		out[name] = branch{Name: name, Commit: f[0], Author: strings.ToValidUTF8(f[3], "\ufffd"), Subject: strings.ToValidUTF8(f[4], "\ufffd"), Time: at}
	}
	return out, nil
}

// update is a change of one branch; before is "" where it is new, after where
// it goes.
type update struct {
	Local  string `json:"local"`
	Remote string `json:"remote,omitempty"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	Result string `json:"result"`
}

// apply changes branches, all or none, and only if they are still as they were.
func (r *repo) apply(ctx context.Context, why string, updates []update) error {
	// Git cannot make a/b in the transaction that deletes a.
	var gone, rest []update
	for _, u := range updates {
		if u.After == "" {
			gone = append(gone, u)
		} else if u.Before != u.After {
			rest = append(rest, u)
		}
	}
	for _, part := range [][]update{gone, rest} {
		if err := r.transact(ctx, why, part); err != nil {
			return err
		}
	}
	return nil
}

func (r *repo) transact(ctx context.Context, why string, updates []update) error {
	if len(updates) == 0 {
		return nil
	}
	var in bytes.Buffer
	in.WriteString("start\n")
	for _, u := range updates {
		switch {
		case u.After == "":
			fmt.Fprintf(&in, "delete %s%s %s\n", localPrefix, u.Local, u.Before)
		case u.Before == "":
			fmt.Fprintf(&in, "create %s%s %s\n", localPrefix, u.Local, u.After)
		default:
			fmt.Fprintf(&in, "update %s%s %s %s\n", localPrefix, u.Local, u.After, u.Before)
		}
	}
	in.WriteString("prepare\ncommit\n")
	_, err := r.git.do(ctx, run{dir: r.bare(), args: []string{"update-ref", "-m", "muster: " + why, "--stdin"}, stdin: &in})
	return err
}

// headBranch is the branch that is checked out, which need not exist.
func (r *repo) headBranch(ctx context.Context) (string, error) {
	ref, err := r.git.text(ctx, r.bare(), "symbolic-ref", "--quiet", "HEAD")
	return strings.TrimPrefix(ref, localPrefix), err
}

func (r *repo) setHead(ctx context.Context, branch string) error {
	_, err := r.git.text(ctx, r.bare(), "symbolic-ref", "HEAD", localPrefix+branch)
	return err
}

// settleHead moves HEAD to a branch that exists, if any does: wanted first,
// which may be "".
func (r *repo) settleHead(ctx context.Context, wanted string) error {
	have, err := r.branches(ctx, localPrefix)
	if err != nil || len(have) == 0 {
		return err
	}
	now, err := r.headBranch(ctx)
	if err != nil {
		return err
	}
	names := []string{now, wanted, "main", "master"}
	for name := range have {
		if len(names) == 4 || name < names[4] {
			names = append(names[:4], name)
		}
	}
	i := slices.IndexFunc(names, func(name string) bool { _, ok := have[name]; return ok })
	if names[i] == now {
		return nil
	}
	return r.setHead(ctx, names[i])
}

// apart counts the commits that only a and only b have.
func (r *repo) apart(ctx context.Context, a, b string) (ahead, behind int, err error) {
	if a == b {
		return 0, 0, nil
	}
	text, err := r.git.text(ctx, r.bare(), "rev-list", "--left-right", "--count", a+"..."+b)
	if err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscan(text, &ahead, &behind)
	return ahead, behind, err
}

// remove deletes branches by name, all or none; every one when names is nil.
func (r *repo) remove(ctx context.Context, names []string) ([]string, error) {
	have, err := r.branches(ctx, localPrefix)
	if err != nil {
		return nil, err
	}
	if names == nil {
		for name := range have {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	var updates []update
	for _, name := range names {
		b, ok := have[name]
		if !ok {
			return nil, fault.New(fault.NotFound, "There is no branch %.200q; nothing was deleted.", name)
		}
		updates = append(updates, update{Local: name, Before: b.Commit})
	}
	if err := r.apply(ctx, "delete branches", updates); err != nil {
		return nil, err
	}
	if err := r.settleHead(ctx, ""); err != nil {
		return nil, err
	}
	return names, r.checkout(ctx, false)
}
