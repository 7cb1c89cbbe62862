package app_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/controller/app"
	"muster/controller/app/apptest"
	"muster/controller/store"
	"muster/controller/store/boltstore"
)

type file struct {
	SHA256 string
	Size   int64
}

func unused(h *apptest.Head, method string) (sizes []int64) {
	h.Helper()
	a := h.As("", method, "/head/files/unused", nil)
	var list []file
	if err := json.Unmarshal(a.Data, &list); a.Status != 200 || err != nil {
		h.Fatalf("%d %s", a.Status, a.Raw)
	}
	for _, f := range list {
		sizes = append(sizes, f.Size)
	}
	slices.Sort(sizes)
	return sizes
}

// TestUnusedFiles: a file that two objects use stays until neither does.
func TestUnusedFiles(t *testing.T) {
	h := apptest.Start(t, nil)
	h.OK("POST", "/bootconfigs", `{"name":"a"}`)
	h.OK("POST", "/bootconfigs", `{"name":"b"}`)
	kernel := func(name string, size int) { h.OK("PUT", "/bootconfig/"+name+"/kernel", strings.Repeat("k", size)) }
	kernel("a", 100)
	kernel("b", 100)
	if got := unused(h, "GET"); len(got) != 0 {
		t.Errorf("unused are %v", got)
	}
	kernel("a", 200)
	if got := unused(h, "DELETE"); len(got) != 0 {
		t.Errorf("removed though in use: %v", got)
	}
	h.OK("DELETE", "/bootconfig/b", nil)
	for range 2 {
		if got := unused(h, "GET"); fmt.Sprint(got) != "[100]" {
			t.Errorf("unused are %v", got)
		}
	}
	if got := unused(h, "DELETE"); fmt.Sprint(got) != "[100]" {
		t.Errorf("removed were %v", got)
	}
	if got := unused(h, "GET"); len(got) != 0 {
		t.Errorf("still unused are %v", got)
	}
	if a := h.As(h.Token(), "GET", "/bootconfig/a/kernel", nil); len(a.Raw) != 200 {
		t.Errorf("what is used is gone: %d %.100s", a.Status, a.Raw)
	}
	files, _ := filepath.Glob(filepath.Join(h.Data, "files", "??", "*"))
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() == 100 {
			t.Errorf("%s is there", f)
		}
	}
}

type cleaned struct {
	Done             bool
	References, Kept []struct{ Kind, Name, Field, Reason string }
	Keys             []struct{ Key, Problem string }
	Clashes, Hints   []string
	Telemetry        []string
	Files            []file
}

func (c cleaned) String() string {
	return fmt.Sprint(c.References, c.Kept, len(c.Keys), len(c.Clashes), len(c.Hints), len(c.Telemetry), len(c.Files))
}

func TestCleanDatabase(t *testing.T) {
	h := apptest.Start(t, nil)
	clean := func(method string) (c cleaned) {
		t.Helper()
		if h.Into(&c, method, "/database/clean", nil); c.Done != (method == "POST") {
			t.Errorf("%s: done is %v", method, c.Done)
		}
		return c
	}
	nothing := "[] [] 0 0 0 0 0"
	if c := clean("GET"); c.String() != nothing {
		t.Errorf("a new database is not in order: %+v", c)
	}
	h.OK("POST", "/images", `{"name":"gone"}`)
	h.OK("POST", "/bootconfigs", `{"name":"free","image":"gone"}`)
	h.OK("POST", "/bootconfigs", `{"name":"ice","image":"gone","frozen":true}`)
	h.OK("POST", "/namingpools", `{"name":"p","pattern":"p{}"}`)
	h.OK("POST", "/nodes", `{"mac":"52:54:00:00:00:01","naming_pool":"p"}`)
	h.OK("POST", "/nodes", `{"mac":"52:54:00:00:00:02"}`)
	h.OK("PUT", "/bootconfig/free/kernel", "old")
	h.OK("PUT", "/bootconfig/free/kernel", "new!")
	h.OK("DELETE", "/image/gone", nil)
	h.OK("DELETE", "/namingpool/p", nil)
	h.Stop()
	damage(t, filepath.Join(h.Data, "muster.db"))

	h = apptest.Start(t, func(c *app.Config) { c.Data = h.Data })
	refused(t, h.As(h.Token(), "POST", "/attribs", `{"name":"ghost"}`), 409, "already exists")
	for range 2 { // looking changes nothing
		c := clean("GET")
		if got := fmt.Sprint(c.References); got != "[{bootconfig free image }]" {
			t.Errorf("references: %s", got)
		}
		if len(c.Kept) != 2 || !strings.Contains(fmt.Sprint(c.Kept), "{bootconfig ice image the bootconfig is frozen}") || !strings.Contains(fmt.Sprint(c.Kept), "naming_pool the object's place depends on it") {
			t.Errorf("kept: %v", c.Kept)
		}
		if len(c.Hints) != 1 || len(c.Files) != 1 || len(c.Clashes) != 0 {
			t.Errorf("found %+v", c)
		}
		problems := []string{}
		for _, k := range c.Keys {
			problems = append(problems, k.Problem+" "+k.Key[:2])
		}
		if slices.Sort(problems); fmt.Sprint(problems) != "[missing r/ missing u/ stale r/ stale u/ wrong u/]" {
			t.Errorf("keys: %v", c.Keys)
		}
	}
	if found, did := clean("GET"), clean("POST"); found.String() != did.String() {
		t.Errorf("found %v, did %v", found, did)
	}
	if c := clean("GET"); len(c.References)+len(c.Keys)+len(c.Hints)+len(c.Files) != 0 || len(c.Kept) != 2 {
		t.Errorf("afterwards %+v", c)
	}
	if got := string(h.OK("GET", "/bootconfig/free", nil)); strings.Contains(got, `"image"`) {
		t.Errorf("the boot configuration is %s", got)
	}
	h.OK("POST", "/attribs", `{"name":"ghost"}`)
	refused(t, h.As(h.Token(), "POST", "/bootconfigs", `{"name":"DefaultBoot"}`), 409, "already exists")
	h.OK("PATCH", "/attrib/DefaultAttribs", `{"name":"renamed"}`)
	h.OK("POST", "/attribs", `{"name":"DefaultAttribs"}`)
}

// damage does to a database what only mistakes of a program can do.
func damage(t *testing.T, path string) {
	st, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	nobody := strings.Repeat("e", 32)
	_, err = st.Update(t.Context(), func(tx store.Tx) error {
		if err := tx.Delete("u/bootconfig/name/DefaultBoot"); err != nil { // missing
			return err
		}
		for pair, err := range tx.Scan("r/", "") { // missing
			if err != nil {
				return err
			}
			if err := tx.Delete(pair.Key); err != nil {
				return err
			}
			break
		}
		for key, value := range map[string]string{
			"u/attrib/name/ghost": nobody, "u/attrib/name/DefaultAttribs": nobody, // stale, wrong
			"r/image/" + nobody + "/bootconfig/" + nobody: "",                                                       // stale
			"u/newkind/name/x":                            nobody, "r/newkind/" + nobody + "/newkind/" + nobody: "", // of a newer version
		} {
			if err := tx.Put(key, []byte(value)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = st.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestUsageSurvivesARestart: the sums of the head itself, through the API.
func TestUsageSurvivesARestart(t *testing.T) {
	h := apptest.Start(t, nil)
	h.OK("POST", "/nodes", `{"mac":"52:54:00:00:00:01"}`)
	hours := func() (total float64) {
		t.Helper()
		var u struct {
			Hours      map[string]float64 `json:"node_hours"`
			Accountant string
		}
		if h.Into(&u, "GET", "/cluster/usage", nil); u.Accountant != "head" {
			t.Errorf("usage comes from %q", u.Accountant)
		}
		return u.Hours["total"]
	}
	for hours() == 0 {
		time.Sleep(time.Millisecond) // time is what is measured
	}
	before := hours()
	h = again(t, h)
	if after := hours(); after < before {
		t.Errorf("%v node-hours became %v", before, after)
	}
	h.OK("PUT", "/cluster/accountant", `{"type":"none"}`)
	h = again(t, h)
	if a := h.As(h.Token(), "GET", "/cluster/usage", nil); a.Status < 400 || a.Status > 499 || a.Reason == "" {
		t.Errorf("without accounting: %d %s", a.Status, a.Raw)
	}
}
