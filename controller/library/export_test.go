package library_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"muster/controller/api/apitest"
)

// exported gives a head with a complete boot configuration b, and its export.
func exported(t *testing.T, query string) (*lib, []byte) {
	l := start(t)
	l.Create("images", `{"name":"i","description":"an image"}`)
	l.OK("PUT", "/image/i/content", squash(t))
	l.Create("bootconfigs", `{"name":"b","image":"i","cmdline":"quiet","boot_style":"roram"}`)
	l.OK("PUT", "/bootconfig/b/kernel", kernel())
	l.OK("PUT", "/bootconfig/b/initramfs", "070701 and so on")
	l.OK("PATCH", "/bootconfig/b", `{"frozen":true}`)
	l.Create("attribs", `{"name":"g","attributes":{"rack":"r7","_secret":1}}`)
	a := l.Do("GET", "/bootconfig/b/export"+query, nil)
	if a.Status != 200 || a.Header.Get("Content-Type") != "application/x-tar" || !strings.Contains(a.Header.Get("Content-Disposition"), "b.tar") {
		t.Fatalf("export: %d %v %.200s", a.Status, a.Header, a.Raw)
	}
	return l, a.Raw
}

// empty says that an import left nothing behind, but files that will be swept.
func (l *lib) empty(t *testing.T, what string) {
	t.Helper()
	for _, plural := range []string{"bootconfigs", "images", "attribs"} {
		if all := l.List(plural); len(all) != 0 {
			t.Errorf("%s: %s are left: %v", what, plural, all)
		}
	}
}

func TestExportAndImport(t *testing.T) {
	from, archive := exported(t, "?groups=g")
	to := start(t)
	made := apitest.Decode[apitest.Map](t, to.OK("POST", "/bootconfigs/import", archive))
	if made["name"] != "b" || made["image"] != "i" {
		t.Errorf("made %v", made)
	}
	for _, path := range []string{"/bootconfig/b/kernel", "/bootconfig/b/initramfs", "/image/i/content"} {
		if a, b := from.Do("GET", path, nil), to.Do("GET", path, nil); b.Status != 200 || !bytes.Equal(a.Raw, b.Raw) {
			t.Errorf("%s: %d with %d bytes, exported were %d", path, b.Status, len(b.Raw), len(a.Raw))
		}
	}
	bc, img := to.Get("bootconfig/b"), to.Get("image/i")
	if bc["uid"] != made["uid"] || bc["image"] != "i" || bc["cmdline"] != "quiet" || bc["boot_style"] != "roram" || bc["frozen"] != nil || img["description"] != "an image" {
		t.Errorf("imported %v with %v", bc, img)
	}
	if g := to.Get("attrib/g")["attributes"].(apitest.Map); g["rack"] != "r7" || fmt.Sprint(g["_secret"]) != "1" {
		t.Errorf("imported group %v", g)
	}
	to.OK("GET", "/bootconfig/b/errors", nil)

	// Once more: the name is taken, and under another one image and group are shared.
	if reason := to.Refused("POST", "/bootconfigs/import", archive); !strings.Contains(reason, "?name=") {
		t.Error(reason)
	}
	to.OK("PUT", "/bootconfigs/import?name=c", archive)
	if len(to.List("images")) != 1 || to.Get("bootconfig/c")["image"] != "i" {
		t.Error("the image that is here is not used")
	}
	to.OK("PUT", "/image/i/content", "other")
	if reason := to.Refused("POST", "/bootconfigs/import?name=d", archive); !strings.Contains(reason, "?image=") {
		t.Error(reason)
	}
	to.OK("PATCH", "/attrib/g/attributes", `{"rack":"r8"}`)
	if reason := to.Refused("POST", "/bootconfigs/import?name=d&image=j", archive); !strings.Contains(reason, "group g") {
		t.Error(reason)
	}
	if a := to.Do("GET", "/image/j", nil); a.Status != 404 {
		t.Error("a refused import left its image")
	}
	to.OK("DELETE", "/attrib/g", nil)
	to.OK("POST", "/bootconfigs/import?name=d&image=j", archive)

	_, bare := exported(t, "?image=false")
	other := start(t)
	other.OK("POST", "/bootconfigs/import", bare)
	if len(other.List("images")) != 0 || len(other.List("attribs")) != 0 || other.Get("bootconfig/b")["image"] != nil {
		t.Error("an export without image brought one")
	}
	from.Refused("GET", "/bootconfig/nobody/export", nil)
	from.Refused("GET", "/bootconfig/b/export?groups=nobody", nil)
}

// entryOf is one of an archive, as the test changes it.
type entryOf struct {
	tar.Header
	body []byte
}

func entries(t *testing.T, archive []byte) (out []entryOf) {
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, entryOf{*h, body})
	}
}

func pack(t *testing.T, all []entryOf) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range all {
		if e.Typeflag == tar.TypeReg {
			e.Size = int64(len(e.body))
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHostileImport(t *testing.T) {
	_, archive := exported(t, "?groups=g")
	good := entries(t, archive)
	l := start(t)
	change := func(fn func([]entryOf) []entryOf) []byte {
		all := make([]entryOf, len(good))
		for i, e := range good {
			all[i] = entryOf{e.Header, bytes.Clone(e.body)}
		}
		return pack(t, fn(all))
	}
	manifest := func(old, new string) []byte {
		return change(func(all []entryOf) []entryOf {
			all[0].body = bytes.Replace(all[0].body, []byte(old), []byte(new), 1)
			return all
		})
	}
	for name, c := range map[string]struct {
		archive []byte
		word    string
	}{
		"nothing":           {nil, "not complete"},
		"no archive":        {bytes.Repeat([]byte("hello "), 1000), "no tar"},
		"other first entry": {change(func(all []entryOf) []entryOf { return all[1:] }), "muster.json"},
		"traversal":         {change(func(all []entryOf) []entryOf { all[1].Name = "../../../etc/passwd"; return all }), "../../../etc/passwd"},
		"link": {change(func(all []entryOf) []entryOf {
			all[1].Typeflag, all[1].Linkname, all[1].body, all[1].Size = tar.TypeSymlink, "/etc/passwd", nil, 0
			return all
		}), "type"},
		"damaged":         {change(func(all []entryOf) []entryOf { all[2].body[3] ^= 1; return all }), "damaged"},
		"file missing":    {change(func(all []entryOf) []entryOf { return all[:len(all)-1] }), "not complete"},
		"file too many":   {change(func(all []entryOf) []entryOf { return append(all, all[1]) }), "after its last file"},
		"other format":    {manifest("muster-bootconfig", "other"), "other"},
		"newer version":   {manifest(`"version": 1`, `"version": 9`), "newer"},
		"digest":          {manifest(`"sha256": "`, `"sha256": "../`), "digest"},
		"slot":            {manifest(`"slot": "kernel"`, `"slot": "iso"`), "iso"},
		"duplicate key":   {manifest(`"version": 1`, `"version": 1, "version": 1`), "JSON"},
		"unknown field":   {manifest(`"cmdline"`, `"nonsense"`), "nonsense"},
		"settled field":   {manifest(`"cmdline": "quiet"`, `"uid": "00000000000000000000000000000000"`), "uid"},
		"negative size":   {manifest(`"size": `, `"size": -`), "digest"},
		"huge size":       {manifest(`"size": `, `"size": 9`), "damaged"},
		"kickstart there": {manifest(`"files":`, `"kickstarts": {"../x": "y"}, "files":`), "directory"},
		"no image":        {manifest(`"image":`, `"imagine":`), "no image"},
	} {
		t.Run(name, func(t *testing.T) {
			l := &lib{Head: l.For(t), Library: l.Library, blobs: l.blobs, dir: l.dir}
			if reason := l.Refused("POST", "/bootconfigs/import", c.archive); !strings.Contains(reason, c.word) {
				t.Errorf("%q does not say %q", reason, c.word)
			}
			l.empty(t, name)
		})
	}
	for _, at := range []int{100, 600, 3000, len(archive) / 2, len(archive) - 1500} {
		l.send(t, fmt.Sprintf("POST /api/v1/bootconfigs/import HTTP/1.1\r\nContent-Length: %d", len(archive)), archive[:at], true)
		l.empty(t, fmt.Sprintf("cut off after %d bytes", at))
	}
	l.OK("POST", "/bootconfigs/import", archive)
}

// FuzzImport: no archive does harm, and one that is taken is complete.
func FuzzImport(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	text := `{"format":"muster-bootconfig","version":1,"bootconfig":{"name":"b"},"files":[]}`
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "muster.json", Size: int64(len(text)), Mode: 0o644}), func() error { _, err := w.Write([]byte(text)); return err }(), w.Close()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("muster.json"))
	l := start(f)
	l.List("bootconfigs") // what the harness makes at the first request it must not make inside
	f.Fuzz(func(t *testing.T, archive []byte) {
		l := &lib{Head: l.For(t), Library: l.Library, blobs: l.blobs, dir: l.dir}
		a := l.Do("POST", "/bootconfigs/import", archive)
		if a.Status >= 500 {
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
		for uid := range l.List("bootconfigs") {
			if a.Status != 200 {
				t.Fatalf("a refused import left %s", uid)
			}
			l.OK("DELETE", "/bootconfig/"+uid, nil)
		}
	})
}
