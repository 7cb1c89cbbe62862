// Package arch holds the project to its architecture: who may import whom, who
// may read the environment, and how big a file may grow. It has only tests.
package arch

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "muster"

// pkg is what go list tells about one package of the module.
type pkg struct {
	Dir        string
	ImportPath string
	Name       string
	GoFiles    []string
	CgoFiles   []string
	// Of tests, inside the package and outside of it.
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	Module       *struct{ Dir string }
}

// path is the package's path inside the module.
func (p *pkg) path() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func (p *pkg) files() []string { return slices.Concat(p.GoFiles, p.CgoFiles) }

// within says whether the package is dir or below it.
func within(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") })
}

func packages(t *testing.T) (root string, all []*pkg) {
	cmd := exec.Command("go", "list", "-e", "-json=Dir,ImportPath,Name,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles,Imports,Module", module+"/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if len(p.files()) > 0 {
			all = append(all, &p)
			root = p.Module.Dir
		}
	}
	if len(all) < 10 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return root, all
}

// support are packages that only tests import.
func support(path string) bool { return strings.HasSuffix(path, "test") || within(path, "scripts") }

func TestImports(t *testing.T) {
	_, all := packages(t)
	storeUsers := []string{"controller/registry", "controller/fleet", "controller/app", "controller/store"}
	for _, p := range all {
		from := p.path()
		for _, imported := range p.Imports {
			to, own := strings.CutPrefix(imported, module+"/")
			if !own {
				continue
			}
			why := ""
			switch {
			case within(from, "agent") && within(to, "controller"), within(from, "controller") && within(to, "agent"):
				why = "agent and controller meet only in shared/wire"
			case within(from, "shared") && !within(to, "shared"):
				why = "shared imports neither side"
			case within(from, "images", "initramfs") && !within(to, "shared") && top(from) != top(to):
				why = top(from) + " imports only shared"
			case within(from, "controller/store") && within(to, "shared") && to != "shared/filesystem":
				why = "a store knows keys and bytes, no kinds"
			case within(to, "controller/store") && !within(from, storeUsers...) && !support(from):
				why = "only the registry and the fleet keep things in the store"
			case to != "controller/store" && within(to, "controller/store") && !within(from, "controller/app", "controller/store") && !support(from):
				why = "only app picks the store's backend"
			case within(to, "scripts") && !within(from, "scripts"):
				why = "scripts are no part of the programs"
			case support(to) && !within(to, "scripts") && !support(from):
				why = "it is there for tests only"
			case feature(from) != "" && !support(from) && !mayUse(feature(from), to):
				why = "a feature declares the methods that it needs, and imports no other"
			}
			if why != "" {
				t.Errorf("%s imports %s: %s", from, to, why)
			}
		}
	}
}

func top(path string) string { dir, _, _ := strings.Cut(path, "/"); return dir }

// feature gives the folder of controller that a package belongs to, "" for
// those that connect the others.
func feature(path string) string {
	parts := strings.Split(path, "/")
	if len(parts) < 2 || parts[0] != "controller" || slices.Contains([]string{"app", "cli", "store", "registry", "api"}, parts[1]) {
		return ""
	}
	return parts[0] + "/" + parts[1]
}

func mayUse(feature, to string) bool {
	if feature == "controller/fleet" && to == "controller/store" {
		return true
	}
	return within(to, "shared", "images", "initramfs", "controller/api", "controller/registry", feature)
}

// parsed gives every file of a package that is no test.
func parsed(t *testing.T, p *pkg) (*token.FileSet, []*ast.File) {
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range p.files() {
		f, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return set, files
}

func TestSource(t *testing.T) {
	_, all := packages(t)
	for _, p := range all {
		if base := filepath.Base(p.path()); slices.Contains([]string{"util", "utils", "common", "helpers", "models", "constants", "misc"}, base) {
			t.Errorf("%s: that name says nothing of what is inside", p.path())
		}
		for _, name := range slices.Concat(p.files(), p.TestGoFiles, p.XTestGoFiles) {
			checkLength(t, filepath.Join(p.Dir, name))
		}
		set, files := parsed(t, p)
		docs := 0
		for _, f := range files {
			if f.Doc != nil {
				docs++
			}
			checkInput(t, p, set, f)
		}
		if docs != 1 {
			t.Errorf("%s: %d files have a package doc, one must", p.path(), docs)
		}
		checkState(t, set, files)
	}
}

// maxLines bounds a file, of tests too.
const maxLines = 500

func checkLength(t *testing.T, file string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(raw, []byte("\n")); n > maxLines {
		t.Errorf("%s has %d lines: it does more than one thing", file, n)
	}
}

// checkInput refuses what reads flags or the environment in packages to which
// these are given. The tools of a shell have its environment by their nature.
func checkInput(t *testing.T, p *pkg, set *token.FileSet, f *ast.File) {
	if p.Name == "main" || support(p.path()) || within(p.path(), "agent/app", "controller/app", "controller/cli", "agent/shell") {
		return
	}
	for _, i := range f.Imports {
		if path := strings.Trim(i.Path.Value, `"`); path == "flag" || strings.HasPrefix(path, "github.com/spf13/") {
			t.Errorf("%s: flags are read by app, cli and main only", set.Position(i.Pos()))
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && len(call.Args) == 1 {
			if word, ok := call.Args[0].(*ast.BasicLit); ok && word.Value == `"PATH"` {
				return false // where programs are found, as exec.LookPath has it
			}
		}
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "os" && x.Obj == nil && slices.Contains([]string{"Getenv", "LookupEnv", "ExpandEnv", "Args"}, s.Sel.Name) {
				t.Errorf("%s: os.%s is for app, cli and main only", set.Position(n.Pos()), s.Sel.Name)
			}
		}
		return true
	})
}

// checkState refuses init functions and variables of a package that its
// functions change: both make what a program does depend on what it links.
func checkState(t *testing.T, set *token.FileSet, files []*ast.File) {
	vars, specs := map[string]bool{}, map[any]bool{}
	for _, f := range files {
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				for _, s := range g.Specs {
					specs[s] = true
					for _, name := range s.(*ast.ValueSpec).Names {
						vars[name.Name] = true
					}
				}
			}
		}
	}
	global := func(e ast.Expr) bool {
		x := rootOf(e)
		return x != nil && x.Name != "_" && (x.Obj == nil && vars[x.Name] || x.Obj != nil && specs[x.Obj.Decl])
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			var changed []ast.Expr
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Name.Name == "init" && n.Recv == nil {
					t.Errorf("%s: nothing registers itself in init", set.Position(n.Pos()))
				}
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					changed = n.Lhs
				}
			case *ast.IncDecStmt:
				changed = []ast.Expr{n.X}
			}
			for _, e := range changed {
				if global(e) {
					t.Errorf("%s: a variable of the package changes while it runs", set.Position(e.Pos()))
				}
			}
			return true
		})
	}
}

// rootOf gives the variable that an expression on the left changes.
func rootOf(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

func TestTopLevel(t *testing.T) {
	root, _ := packages(t)
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	permitted := []string{
		"agent", "controller", "images", "initramfs", "scripts", "shared",
		"go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md",
		"bin", // made by make, ignored by git
	}
	for _, e := range entries {
		if !slices.Contains(permitted, e.Name()) && !strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s does not belong on the top level", e.Name())
		}
	}
}

// TestForeignNames keeps out of the project what belongs to one workplace or
// ties a build to one server.
func TestForeignNames(t *testing.T) {
	root, _ := packages(t)
	cmd := exec.Command("git", "-C", root, "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	out, err := cmd.Output()
	if err != nil {
		t.Skip("not a checkout: ", err)
	}
	foreign := []string{"/wo" + "rk/", "proxy.go" + "lang.org", "sum.go" + "lang.org", "registry.np" + "mjs.org", "py" + "pi.org", "crat" + "es.io"}
	for _, name := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		raw, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			continue // deleted, or a directory of another repository
		}
		for _, word := range foreign {
			if bytes.Contains(raw, []byte(word)) {
				t.Errorf("%s mentions %s", name, word)
			}
		}
	}
}
