package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"muster/images"
	"muster/images/recipe"
	"muster/images/sandbox"
	"muster/images/squashfs"
)

// base gives what the image begins as, packages included: a directory as it
// is, else a squashfs out of the cache.
func (b *build) base(ctx context.Context) (string, error) {
	rec, source := &b.opt.Recipe, b.source()
	if source != "" && len(rec.Packages) == 0 && asItIs(source) {
		return source, nil
	}
	id, err := b.identify(ctx, source)
	if err != nil {
		return "", err
	}
	if id == "" { // nobody can tell whether a directory has changed
		out := filepath.Join(b.work, "base")
		return out, b.makeBase(ctx, source, b.work, out)
	}
	c := cache{dir: b.opt.Cache, watcher: b.opt.Watcher}
	return c.entry(ctx, id, b.opt.Fresh, func(half, out string) error { return b.makeBase(ctx, source, half, out) })
}

// asItIs says whether a source needs no making: a directory, or a sound
// squashfs.
func asItIs(source string) bool {
	f, err := os.Open(source)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.IsDir() {
		return err == nil && !images.IsLayout(source)
	}
	_, err = squashfs.Check(f, st.Size())
	return err == nil
}

// source is the base's source as this machine finds it.
func (b *build) source() string {
	s := b.opt.Recipe.Base.Source
	if s == "" || images.IsReference(s) || filepath.IsAbs(s) {
		return s
	}
	return filepath.Join(b.opt.Dir, s)
}

// makeBase makes the base as a squashfs, in a directory for the purpose.
func (b *build) makeBase(ctx context.Context, source, dir, out string) error {
	rec := b.opt.Recipe
	if source != "" {
		b.opt.Watcher.Step("take the base from " + filepath.Base(source))
		plain := filepath.Join(dir, "plain")
		if _, err := images.Import(ctx, source, plain, b.opt.Watcher.At); err != nil {
			return err
		}
		if len(rec.Packages) == 0 {
			return os.Rename(plain, out)
		}
		layer := filepath.Join(dir, "packages")
		if err := os.Mkdir(layer, 0o755); err != nil {
			return err
		}
		root, err := Open(ctx, plain, layer, b.opt.Watcher)
		if err != nil {
			return err
		}
		err = b.pack(ctx, root.Root, out, func(in *build) error { return in.install(ctx) })
		return errors.Join(err, root.Close())
	}
	tool, need := b.mmdebstrap, "mmdebstrap"
	if rec.Base.Tool == recipe.DNF || (b.opt.Distro != nil && b.opt.Distro.Packaging == "rpm") {
		tool, need = b.dnf, "dnf"
	}
	if _, err := exec.LookPath(need); err != nil {
		return fmt.Errorf("the program %s is missing: install the package of that name, or let the base be a source made elsewhere", need)
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	return b.pack(ctx, root, out, func(in *build) error { return tool(ctx, in, dir) })
}

// pack packs a root once it has been filled.
func (b *build) pack(ctx context.Context, root, out string, fill func(*build) error) error {
	in := &build{opt: b.opt, work: b.work, root: root}
	if err := fill(in); err != nil {
		return err
	}
	if err := clean(root, true); err != nil {
		return err
	}
	if err := clamp(root, b.opt.Recipe.Epoch); err != nil {
		return err
	}
	b.opt.Watcher.Step("pack the base, once")
	_, err := images.ImportTree(ctx, root, out, nil, b.opt.Watcher.At)
	return err
}

// mmdebstrap fills the root with Debian, Ubuntu or another of their family.
func (b *build) mmdebstrap(ctx context.Context, in *build, dir string) error {
	base := b.opt.Recipe.Base
	variant, components := base.Variant, base.Components
	if variant == "" {
		variant = "minbase"
	}
	argv := []string{"mmdebstrap", "--mode=root", "--format=directory", "--variant=" + variant}
	if len(b.opt.Recipe.Packages) > 0 {
		argv = append(argv, "--include="+strings.Join(b.opt.Recipe.Packages, ","))
	}
	if len(components) > 0 {
		argv = append(argv, "--components="+strings.Join(components, ","))
	}
	if base.Keyring != "" {
		argv = append(argv, "--keyring="+base.Keyring)
	}
	argv = append(argv, base.Options...)
	release, mirrors := base.Release, base.Mirrors
	if d := b.opt.Distro; d != nil {
		file := filepath.Join(dir, "distro.sources")
		if err := os.WriteFile(file, []byte(d.Sources), 0o644); err != nil {
			return err
		}
		release, mirrors = d.suite(), []string{file}
	}
	argv = append(append(argv, release, in.root), mirrors...)
	b.opt.Watcher.Step("bootstrap " + release + " with mmdebstrap, once")
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	err := in.run(ctx, sandbox.Command{Argv: argv, Bare: true, Env: b.environment("HOME=/root", "TMPDIR="+tmp)})
	if err != nil {
		return fmt.Errorf("mmdebstrap: %w", err)
	}
	// It copies these from this machine.
	for _, name := range []string{"etc/resolv.conf", "etc/hostname"} {
		if err := os.Remove(filepath.Join(in.root, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// suite is the distro's release, or the first that its sources name.
func (d *Distro) suite() string {
	for line := range strings.Lines(d.Sources) {
		if s, ok := strings.CutPrefix(line, "Suites:"); ok {
			if words := strings.Fields(s); len(words) > 0 && !strings.HasSuffix(words[0], "/") {
				return words[0]
			}
		}
	}
	return d.Release
}

// rpmdb is where rpm has its database; Debian's has it in the user's home.
const rpmdb = "/var/lib/rpm"

// dnf fills the root with packages of Fedora, Rocky or another of their family.
func (b *build) dnf(ctx context.Context, in *build, dir string) error {
	base := b.opt.Recipe.Base
	sources, release := repoFile(base.Repos), base.Release
	if d := b.opt.Distro; d != nil {
		sources, release = d.Sources, d.Release
	}
	home, repos := filepath.Join(dir, "home"), filepath.Join(dir, "repos")
	if err := errors.Join(os.Mkdir(home, 0o755), os.Mkdir(repos, 0o755),
		os.WriteFile(filepath.Join(home, ".rpmmacros"), []byte("%_dbpath "+rpmdb+"\n"), 0o644),
		os.WriteFile(filepath.Join(repos, "base.repo"), []byte(sources), 0o644)); err != nil {
		return err
	}
	argv := []string{"dnf", "--assumeyes", "--installroot=" + in.root, "--setopt=reposdir=" + repos, "--setopt=cachedir=" + filepath.Join(dir, "packages"),
		"--setopt=varsdir=/nonexistent", "--setopt=pluginpath=/nonexistent", "--setopt=install_weak_deps=False", "--setopt=keepcache=False"}
	if release != "" {
		argv = append(argv, "--releasever="+release)
	}
	argv = append(append(append(argv, base.Options...), "install"), b.opt.Recipe.Packages...)
	b.opt.Watcher.Step("install with dnf, once")
	if err := in.run(ctx, sandbox.Command{Argv: argv, Outside: true, Env: b.environment("HOME=" + home)}); err != nil {
		return fmt.Errorf("dnf: %w", err)
	}
	return in.moveRpmdb(ctx)
}

// moveRpmdb puts the database where the root's own rpm looks for it.
func (b *build) moveRpmdb(ctx context.Context) error {
	var said strings.Builder
	c := sandbox.Command{Argv: []string{"rpm", "--eval", "%_dbpath"}, Env: b.environment("HOME=/root"), Stdout: &said}
	if err := sandbox.Run(ctx, b.root, c); err != nil {
		return ctx.Err() // without an rpm nobody looks
	}
	at := path.Clean(strings.TrimSpace(said.String()))
	if !path.IsAbs(at) || at == rpmdb || at == "/" {
		return nil
	}
	r, err := os.OpenRoot(b.root)
	if err != nil {
		return err
	}
	defer r.Close()
	if st, err := r.Lstat(rpmdb[1:]); err != nil || !st.IsDir() {
		return err // a link to the other, as newer releases have it
	}
	return errors.Join(r.MkdirAll(path.Dir(at)[1:], 0o755), r.RemoveAll(at[1:]), r.Rename(rpmdb[1:], at[1:]))
}

func repoFile(repos []recipe.Repo) string {
	var out strings.Builder
	for i, r := range repos {
		fmt.Fprintf(&out, "[base-%d]\nname=base-%d\nbaseurl=%s\nenabled=1\n", i+1, i+1, r.URL)
		if r.Unsigned {
			out.WriteString("gpgcheck=0\n")
		} else {
			fmt.Fprintf(&out, "gpgcheck=1\ngpgkey=%s\n", r.Key)
		}
	}
	return out.String()
}

// install adds packages by the root's own package manager.
func (b *build) install(ctx context.Context) error {
	for _, m := range managers() {
		if _, err := os.Stat(filepath.Join(b.root, m.program)); err != nil {
			continue
		}
		b.opt.Watcher.Step("install packages with " + path.Base(m.program) + ", once")
		for _, argv := range m.commands {
			if argv[len(argv)-1] == "" {
				argv = append(argv[:len(argv)-1], b.opt.Recipe.Packages...)
			}
			if err := b.run(ctx, sandbox.Command{Argv: argv}); err != nil {
				return fmt.Errorf("%s: %w", strings.Join(argv[:2], " "), err)
			}
		}
		return nil
	}
	return errors.New("packages: the base has no package manager that is known (apt-get, dnf, microdnf, zypper, apk)")
}

type manager struct {
	program  string
	commands [][]string // an empty word stands for the packages
}

func managers() []manager {
	return []manager{
		{"usr/bin/apt-get", [][]string{{"apt-get", "-q", "update"}, {"apt-get", "-q", "-y", "--no-install-recommends", "install", ""}}},
		{"usr/bin/dnf", [][]string{{"dnf", "-y", "--setopt=install_weak_deps=False", "install", ""}}},
		{"usr/bin/microdnf", [][]string{{"microdnf", "-y", "install", ""}}},
		{"usr/bin/zypper", [][]string{{"zypper", "--non-interactive", "install", "--no-recommends", ""}}},
		{"sbin/apk", [][]string{{"apk", "add", "--no-cache", ""}}},
	}
}
