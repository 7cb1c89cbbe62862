package recipe

import (
	"reflect"
	"strings"
	"testing"
)

const full = `
packages = ["systemd-sysv", "g++"]
exclude  = ["usr/share/doc/*"]
epoch    = 1700000000

[base]
tool       = "mmdebstrap"
release    = "bookworm"
mirrors    = ["http://deb.debian.org/debian"]
components = ["main", "contrib"]

[[files]]
path    = "/etc/motd"
content = "hello\n"
owner   = "root:adm"
mode    = "0640"

[[files]]
path = "/srv/data/"

[[scripts]]
run = "echo hello"
`

const fullYAML = `
base: {tool: mmdebstrap, release: bookworm, mirrors: ["http://deb.debian.org/debian"], components: [main, contrib]}
packages: [systemd-sysv, g++]
exclude: [usr/share/doc/*]
epoch: 1700000000
files:
- {path: /etc/motd, content: "hello\n", owner: "root:adm", mode: "0640"}
- path: /srv/data/
scripts:
- run: echo hello
`

func TestRead(t *testing.T) {
	a, err := Read("r.toml", strings.NewReader(full))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Read("r.yaml", strings.NewReader(fullYAML))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) || *a.Files[0].Content != "hello\n" || a.Base.Components[1] != "contrib" {
		t.Errorf("TOML %+v\nYAML %+v", a, b)
	}
	for i, want := range []uint32{0o640, 0o755} {
		if got, err := a.Files[i].Bits(); got != want || err != nil {
			t.Errorf("mode %o, %v", got, err)
		}
	}
}

func TestRefused(t *testing.T) {
	base := "[base]\nsource = \"x\"\n"
	for text, want := range map[string]string{
		"":                                "exactly one of tool",
		"surprise = 1\n" + base:           "surprise is no part",
		base + "image = \"y\"":            "exactly one of tool",
		base + "mirrors = [\"http://a\"]": "go with a tool only",
		"[base]\ntool = \"rpmstrap\"":     "neither mmdebstrap nor dnf",
		"[base]\ntool = \"mmdebstrap\"":   "release",
		"[base]\ntool = \"mmdebstrap\"\nrelease = \"-x\"":                            "is no release",
		"packages = [\"a\"]\n[base]\ntool = \"dnf\"":                                 "at least one",
		"packages = [\"a\"]\n[base]\ntool = \"dnf\"\nrepos = [{url = \"http://a\"}]": "unsigned = true",
		"[base]\ntool = \"dnf\"\nrepos = [{url = \"http://a\", unsigned = true}]":    "packages",
		"packages = [\"-o=x\"]\n" + base:                                             "is not one of them",
		"packages = [\"a,b\"]\n" + base:                                              "is not one of them",
		"exclude = [\"../x\"]\n" + base:                                              "no pattern",
		"exclude = [\"-e\"]\n" + base:                                                "no pattern",
		"epoch = -1\n" + base:                                                        "no time",
		base + "[[files]]\npath = \"etc/x\"\ncontent = \"\"":                         "absolute",
		base + "[[files]]\npath = \"/a/../../x\"\ncontent = \"\"":                    "absolute",
		base + "[[files]]\npath = \"/x\"":                                            "one of content, source and link",
		base + "[[files]]\npath = \"/x/\"\ncontent = \"\"":                           "directory",
		base + "[[files]]\npath = \"/x\"\ncontent = \"\"\nmode = \"9\"":              "octal",
		base + "[[files]]\npath = \"/x\"\ncontent = \"\"\nowner = \"a b\"":           "user:group",
		base + "[[scripts]]\nname = \"x\"":                                           "run and file",
		"x = [\n":                                                                    "line",
	} {
		if _, err := Read("r.toml", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"base: {source: x}\nsurprise: 1":     "surprise",
		"base: {source: x}\n---\nbase: {}":   "more than one",
		"base: {source: \"x\xff\"}":          "UTF-8",
		strings.Repeat("#", 4<<20) + "\n\n#": "larger",
	} {
		if _, err := Read("r.yml", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v; want %q", text, err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("r.toml", full)
	f.Add("r.yaml", fullYAML)
	f.Add("r.yaml", "a: &a [*a]")
	f.Add("r.yaml", "base: !!binary x")
	f.Fuzz(func(t *testing.T, name, text string) {
		r, err := Read(name, strings.NewReader(text))
		if err == nil {
			if err := r.Check(); err != nil {
				t.Errorf("taken, then refused: %v", err)
			}
			for _, p := range r.Packages {
				if strings.HasPrefix(p, "-") || strings.ContainsAny(p, ", \n") {
					t.Errorf("package %q", p)
				}
			}
		}
	})
}
