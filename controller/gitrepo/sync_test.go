package gitrepo_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/controller/app"
	"muster/controller/app/apptest"
)

// outcome is what the API answers to a synchronization.
type outcome struct {
	Action, Head, Commit, Remote, Kind, Error string
	Branches                                  []struct {
		Local, Remote, Before, After, Result string
		Ahead, Behind                        int
	}
	Last *struct{ Action, Error string }
	Next float64
}

func synced(h *apptest.Head, path string, body any) (out outcome) {
	h.Helper()
	h.Into(&out, "POST", path+"/sync", body)
	return out
}

// results lists what became of each branch.
func (o outcome) results() string {
	var out []string
	for _, b := range o.Branches {
		out = append(out, b.Local+" "+b.Result)
	}
	return strings.Join(out, ", ")
}

// upstream is a source that is served by the head itself over HTTP, under a
// name that no test's own repository has.
func upstream(t testing.TB, h *apptest.Head, name string) (url, src string) {
	_, url, src = filled(t, h, name)
	git(t, src, "remote", "add", "head", withToken(url, h.Token()))
	return url, src
}

func TestMirror(t *testing.T) {
	h := apptest.Start(t, nil)
	from, src := upstream(t, h, "from")
	git(t, src, "push", "-q", "head", "main:dev", "main:a")
	path := create(h, object{"name": "copy", "url": from})
	// Nobody has to wait or to ask: the first reader gets what the remote has.
	if got := raw(h, path+"/content/README"); got != "first\n" {
		t.Errorf("the copy has %q", got)
	}
	refused(h, h.Token(), 403, "GET", path+"/repo/info/refs?service=git-receive-pack", nil)
	git(t, src, "checkout", "-q", "-b", "rewritten")
	git(t, src, "commit", "-q", "--amend", "-m", "rewritten")
	commit(t, src, "README", "second\n")
	git(t, src, "push", "-q", "-f", "head", "HEAD:main", ":a", "HEAD:a/b")
	st := synced(h, path, object{"action": "status"})
	if st.Kind != "url" || st.Remote != from || st.results() != "a , a/b , dev , main " || st.Branches[3].Ahead != 1 || st.Branches[3].Behind != 2 {
		t.Errorf("status: %+v", st)
	}
	if got := raw(h, path+"/content/README"); got != "first\n" {
		t.Errorf("status changed the work tree to %q", got)
	}
	res := synced(h, path, object{"action": "reset"})
	if res.results() != "a/b created, dev unchanged, main reset, a deleted" || res.Head != "main" || res.Commit != git(t, src, "rev-parse", "HEAD") {
		t.Errorf("reset: %+v", res)
	}
	if got := raw(h, path+"/content/README"); got != "second\n" {
		t.Errorf("after the reset it has %q", got)
	}
	work := t.TempDir()
	git(t, work, "clone", "-q", raw(h, path+"/url"))
	if got := git(t, filepath.Join(work, "copy"), "rev-parse", "HEAD"); got != res.Commit {
		t.Errorf("cloned %s", got)
	}
	// Checkout goes to another branch, and stays there.
	res = synced(h, path, object{"action": "checkout", "branchmap": []string{"dev"}})
	if res.Head != "dev" || raw(h, path+"/content/README") != "first\n" {
		t.Errorf("checkout: %+v", res)
	}
	if res = synced(h, path, object{"action": "reset"}); res.Head != "dev" {
		t.Errorf("reset moved to %s", res.Head)
	}
	refused(h, h.Token(), 404, "POST", path+"/sync", object{"action": "checkout", "branchmap": []string{"nothing"}})
}

func TestUpstream(t *testing.T) {
	h := apptest.Start(t, nil)
	from, src := upstream(t, h, "from")
	path := create(h, object{"name": "own", "upstream": from, "branch_map": []string{"site:main"}})
	if got := raw(h, path+"/content/README"); got != "first\n" {
		t.Errorf("it has %q", got)
	}
	own := filepath.Join(t.TempDir(), "own")
	git(t, ".", "clone", "-q", withToken(raw(h, path+"/url"), h.Token()), own)
	if b := git(t, own, "branch", "--show-current"); b != "site" {
		t.Errorf("HEAD is %s", b)
	}
	commit(t, own, "local", "local\n")
	git(t, own, "push", "-q")
	if got := raw(h, path+"/content/local"); got != "local\n" {
		t.Errorf("pushed %q", got)
	}
	commit(t, src, "README", "second\n")
	git(t, src, "push", "-q", "head", "main")
	res := synced(h, path, object{"action": "pull"})
	if res.results() != "site merged" || raw(h, path+"/content/local")+raw(h, path+"/content/README") != "local\nsecond\n" {
		t.Errorf("pull: %+v", res)
	}
	git(t, own, "pull", "-q")
	if got := git(t, own, "log", "-1", "--format=%an %p"); len(strings.Fields(got)) != 3 {
		t.Errorf("the merge is %q", got)
	}
	if log := string(h.OK("GET", "/audit?action=sync", nil)); strings.Count(log, `"action":"sync"`) != 1 || !strings.Contains(log, `"branches":"`+res.Branches[0].Local+" "+res.Branches[0].Result) || !strings.Contains(log, `"action":"pull"`) {
		t.Errorf("the audit trail: %s", log)
	}
	if res = synced(h, path, object{"action": "pull"}); res.results() != "site ahead" {
		t.Errorf("pulling again: %+v", res)
	}
	commit(t, src, "README", "third\n")
	git(t, src, "push", "-q", "head", "main")
	git(t, own, "reset", "-q", "--hard", "HEAD^1") // without the merge
	git(t, own, "push", "-q", "-f")
	res = synced(h, path, object{"action": "rebase"})
	if res.results() != "site rebased" || raw(h, path+"/content/local")+raw(h, path+"/content/README") != "local\nthird\n" {
		t.Errorf("rebase: %+v", res)
	}
	git(t, own, "fetch", "-q")
	if got := git(t, own, "rev-list", "--merges", "--count", "origin/site"); got != "0" {
		t.Errorf("a rebase made %s merges", got)
	}
	// A conflict changes nothing, and says where it is.
	git(t, own, "reset", "-q", "--hard", "origin/site")
	commit(t, own, "README", "ours\n")
	git(t, own, "push", "-q")
	commit(t, src, "README", "theirs\n")
	git(t, src, "push", "-q", "head", "main")
	for _, action := range []string{"pull", "rebase"} {
		if reason := refused(h, h.Token(), 409, "POST", path+"/sync", object{"action": action}); !strings.Contains(reason, "README") {
			t.Errorf("%s: %s", action, reason)
		}
	}
	if got := raw(h, path+"/content/README"); got != "ours\n" {
		t.Errorf("a conflict left %q", got)
	}
	left, _ := filepath.Glob(filepath.Join(h.Data, "gitrepos", "*", "tmp-*"))
	worktrees, _ := filepath.Glob(filepath.Join(h.Data, "gitrepos", "*", "repo.git", "worktrees", "*"))
	if len(left)+len(worktrees) > 0 {
		t.Errorf("left over: %v %v", left, worktrees)
	}
	if res = synced(h, path, object{"action": "reset"}); raw(h, path+"/content/README") != "theirs\n" {
		t.Errorf("reset: %+v", res)
	}
	// Another map for once.
	res = synced(h, path, object{"action": "pull", "branch_map": []object{{"local": "copy", "remote": "main"}}})
	if res.results() != "copy created" {
		t.Errorf("pull with a map: %+v", res)
	}
}

func TestSyncInput(t *testing.T) {
	h := apptest.Start(t, nil)
	path, _, _ := filled(t, h, "x")
	for _, bad := range []any{nil, "{}", `{"action":"push"}`, `{"action":5}`, `{"action":"status","x":1}`, `{"action":"status","branchmap":["--all"]}`, `"status"`, `["status"]`} {
		refused(h, h.Token(), 400, "GET", path+"/sync", bad)
		refused(h, h.Token(), 400, "POST", path+"/sync", bad)
	}
	for _, action := range []string{"reset", "pull", "rebase"} {
		refused(h, h.Token(), 409, "POST", path+"/sync", object{"action": action})
	}
	_, reader := h.NewAdmin("reader", "role.authuser")
	for _, action := range []string{"checkout", "reset", "pull", "rebase"} {
		refused(h, reader.Access, 403, "GET", path+"/sync", object{"action": action})
	}
	if a := h.As(reader.Access, "GET", path+"/sync", object{"action": "status"}); a.Status != 200 || !strings.Contains(string(a.Data), `"kind":"none"`) {
		t.Errorf("status by a reader: %d %s", a.Status, a.Raw)
	}
	refused(h, "", 401, "GET", path+"/sync", object{"action": "status"})
	if res := synced(h, path, object{"action": "checkout"}); res.Head != "main" {
		t.Errorf("checkout: %+v", res)
	}
}

func TestURLAndUpstreamExcludeEachOther(t *testing.T) {
	h := apptest.Start(t, nil)
	from, _ := upstream(t, h, "from")
	refused(h, h.Token(), 400, "POST", "/gitrepos", object{"name": "x", "url": from, "upstream": from})
	path := create(h, object{"name": "x", "url": from})
	refused(h, h.Token(), 400, "PATCH", path, object{"upstream": from})
	h.OK("PATCH", path, object{"upstream": from, "url": nil})
	refused(h, h.Token(), 400, "PATCH", path, object{"url": from})
	// Paths of the head are for those who may do everything.
	local := source(t)
	_, imaging := h.NewAdmin("git", "role.authuser")
	for _, p := range []string{local, "file://" + local} {
		refused(h, imaging.Access, 403, "POST", "/gitrepos", object{"name": "y", "url": p})
		y := create(h, object{"name": "y", "url": p})
		if got := raw(h, y+"/content/README"); got != "first\n" {
			t.Errorf("from %s: %q", p, got)
		}
		h.OK("DELETE", y, nil)
	}
}

// TestPasswordIsNotShown, and is not on any command line.
func TestPasswordIsNotShown(t *testing.T) {
	h := apptest.Start(t, nil)
	from, _ := upstream(t, h, "from")
	h.OK("PATCH", "/gitrepo/from", object{"public": false})
	path := create(h, object{"name": "x", "upstream": withToken(from, h.Token())})
	if got := raw(h, path+"/content/README"); got != "first\n" {
		t.Errorf("it has %q", got)
	}
	var read object
	h.Into(&read, "GET", path, nil)
	read["description"] = "edited"
	h.OK("PUT", path, read)
	delete(read, "uid")
	h.OK("PATCH", path, object{"upstream": read["upstream"]})
	refused(h, h.Token(), 400, "PATCH", path, object{"upstream": "http://other:********@example.org/x"})
	synced(h, path, object{"action": "pull"})
	bad := withToken(from, "s3cret")
	h.OK("PATCH", path, object{"upstream": bad})
	reason := refused(h, h.Token(), 502, "POST", path+"/sync", object{"action": "pull"})
	state, _ := os.ReadFile(filepath.Join(h.Data, "gitrepos", strings.TrimPrefix(path, "/gitrepo/"), "state.json"))
	for _, text := range []string{reason, string(h.OK("GET", path, nil)), string(h.OK("GET", "/gitrepos", nil)), h.Logged.String(), string(state), asJSON(synced(h, path, object{"action": "status"}))} {
		if strings.Contains(text, "s3cret") || strings.Contains(text, h.Token()) {
			t.Errorf("the password is in %s", text)
		}
	}
}

func TestPeriodic(t *testing.T) {
	h := apptest.Start(t, nil)
	from, src := upstream(t, h, "from")
	path := create(h, object{"name": "copy", "url": from, "sync_period": 1})
	content := func(want string) func() bool {
		return func() bool { return string(h.As("", "GET", path+"/content/README", nil).Raw) == want }
	}
	eventually(t, "the first state", content("first\n"))
	commit(t, src, "README", "second\n")
	git(t, src, "push", "-q", "head", "main")
	eventually(t, "the second state", content("second\n"))
	before := string(h.OK("GET", path, nil))
	h.OK("DELETE", "/gitrepo/from", nil)
	eventually(t, "why it fails", func() bool {
		st := synced(h, path, object{"action": "status"})
		return st.Last != nil && st.Last.Error != ""
	})
	if after := string(h.OK("GET", path, nil)); after != before {
		t.Errorf("synchronizing changed the object: %s %s", before, after)
	}
	if st := synced(h, path, object{"action": "status"}); st.Last == nil || st.Last.Error == "" || st.Error == "" || st.Next == 0 {
		t.Errorf("status: %+v", st)
	}
	if !content("second\n")() {
		t.Error("a failure took the content away")
	}
	// A working remote clears it.
	again, _ := upstream(t, h, "again")
	h.OK("PATCH", path, object{"url": again})
	eventually(t, "the new remote", content("first\n"))
	if st := synced(h, path, object{"action": "status"}); st.Last == nil || st.Last.Error != "" || st.Error != "" {
		t.Errorf("with another remote: %+v", st)
	}
	// All of it goes on after a restart, and leftovers are collected.
	h.Stop()
	stale := filepath.Join(h.Data, "gitrepos", strings.Repeat("a", 32))
	dir := filepath.Join(h.Data, "gitrepos", strings.TrimPrefix(path, "/gitrepo/"))
	write(t, stale, "repo.git/HEAD", "x")
	write(t, dir, "tmp-merge-x/y", "z", "repo.git/refs/heads/main.lock", "", "repo.git/objects/pack/tmp_pack_x", "half")
	h = apptest.Start(t, func(c *app.Config) { c.Data = h.Data })
	if got := raw(h, path+"/content/README"); got != "first\n" {
		t.Errorf("after a restart: %q", got)
	}
	for _, p := range []string{stale, dir + "/tmp-merge-x", dir + "/repo.git/refs/heads/main.lock", dir + "/repo.git/objects/pack/tmp_pack_x"} {
		if _, err := os.Lstat(p); !os.IsNotExist(err) {
			t.Errorf("%s is still there", p)
		}
	}
}

// TestFetchDuringSync: clients get a whole repository while it changes.
func TestFetchDuringSync(t *testing.T) {
	h := apptest.Start(t, nil)
	from, src := upstream(t, h, "from")
	path := create(h, object{"name": "copy", "url": from})
	url, work := raw(h, path+"/url"), t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		for ctx.Err() == nil {
			dir := filepath.Join(work, "clone")
			git(t, work, "clone", "-q", url, dir)
			git(t, dir, "fsck", "--strict")
			os.RemoveAll(dir)
		}
	})
	all.Go(func() {
		for ctx.Err() == nil {
			if got := raw(h, path+"/content/README"); got == "" {
				t.Error("the work tree is empty for a while")
			}
			time.Sleep(time.Millisecond) // leaves some of the machine to the others
		}
	})
	commit(t, src, "one", "0")
	git(t, src, "push", "-q", "head", "main")
	synced(h, path, object{"action": "reset"})
	for i := range 3 {
		commit(t, src, "one", strings.Repeat("x", i+1), "README", strings.Repeat("x", i+1))
		git(t, src, "push", "-q", "head", "main")
		synced(h, path, object{"action": "reset"})
		if got := raw(h, path+"/content/one"); len(got) != i+1 {
			t.Errorf("state %d has %q", i, got)
		}
	}
	stop()
	all.Wait()
}
