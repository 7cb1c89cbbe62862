// Command packages builds what other machines install from a head, into
// bin/packages: muster-agent for each processor as deb, rpm and tar, and
// muster itself as tar for the processor that it was built for. `make packages`
// runs it.
//
// The same source gives the same bytes: every time in a package is that of the
// commit, or SOURCE_DATE_EPOCH.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the formats
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"

	"muster/controller/install"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b := build{}
	flag.StringVar(&b.out, "out", "bin/packages", "`directory` for the packages; what an earlier build left there goes")
	flag.StringVar(&b.bin, "bin", "bin", "`directory` with the programs for this processor")
	flag.StringVar(&b.version, "version", "unknown", "`version` as git describes it")
	flag.StringVar(&b.gocmd, "go", "go", "the go `command`")
	only := flag.String("only", "", "build the agent for this `processor` alone, as Go calls it")
	flag.Parse()
	b.targets = map[string]string{"amd64": install.X86, "arm64": install.ARM}
	if *only != "" {
		maps.DeleteFunc(b.targets, func(arch, _ string) bool { return arch != *only })
	}
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		os.Exit(1)
	}
}

type build struct {
	out, bin, version, gocmd string

	targets map[string]string // processors, as Go and as packages call them
	at      time.Time
}

func (b *build) run(ctx context.Context) (err error) {
	if b.at, err = sourceTime(ctx); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "muster-packages-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	half := filepath.Join(work, "out")
	if err := os.Mkdir(half, 0o755); err != nil {
		return err
	}
	for arch, cpu := range b.targets {
		agent := filepath.Join(work, "muster-agent-"+arch)
		if err := b.compile(ctx, arch, agent); err != nil {
			return err
		}
		if err := b.agent(half, arch, cpu, agent); err != nil {
			return err
		}
	}
	program := func(name string) string { return filepath.Join(b.bin, name) }
	head := install.HeadFiles(program("muster"), program("muster-agent"), program("muster-pam"))
	if err := b.tar(half, install.Head, install.NativeCPU(), head); err != nil {
		return fmt.Errorf("%w; `make build` makes the programs", err)
	}
	return b.publish(half)
}

// sourceTime is the time that all files get.
func sourceTime(ctx context.Context) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.CommandContext(ctx, "git", "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("the time of the commit: %w; outside of git set SOURCE_DATE_EPOCH", err)
		}
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(seconds, 0).UTC(), err
}

// compile builds the agent, static, for a processor, as the Makefile does.
func (b *build) compile(ctx context.Context, arch, out string) error {
	cmd := exec.CommandContext(ctx, b.gocmd, "build", "-trimpath", "-tags", "nethttpomithttp2", "-ldflags", "-s -w -X main.version="+b.version, "-o", out, "muster/agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building the agent for %s: %w", arch, err)
	}
	return nil
}

func (b *build) agent(dir, arch, cpu, program string) error {
	all := install.AgentFiles(program)
	if err := b.tar(dir, install.Agent, cpu, all); err != nil {
		return err
	}
	for _, format := range []string{install.Deb, install.RPM} {
		if err := b.native(dir, format, arch, all); err != nil {
			return fmt.Errorf("%s for %s: %w", format, arch, err)
		}
	}
	return nil
}

func (b *build) create(dir, name string, write func(io.Writer) error) error {
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	return f.Close()
}

func (b *build) tar(dir, holds, cpu string, all []install.File) error {
	return b.create(dir, install.TarName(holds, install.PackageVersion(b.version), cpu), func(w io.Writer) error {
		return install.WriteTar(w, all, b.at)
	})
}

// publish replaces what an earlier build left.
func (b *build) publish(half string) error {
	if err := os.RemoveAll(b.out); err != nil {
		return err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	made, err := os.ReadDir(half)
	if err != nil {
		return err
	}
	for _, f := range made {
		content, err := os.ReadFile(filepath.Join(half, f.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(b.out, f.Name()), content, 0o644); err != nil {
			return err
		}
		fmt.Println(filepath.Join(b.out, f.Name()))
	}
	return nil
}

// native makes a package of a packaging system.
func (b *build) native(dir, format, arch string, all []install.File) error {
	info := &nfpm.Info{
		Name: install.Agent, Arch: arch, Platform: "linux", Version: install.PackageVersion(b.version), VersionSchema: "none", Release: "1",
		Section: "admin", Priority: "optional", License: "Apache-2.0", MTime: b.at,
		Maintainer: "the administrators of this cluster <root@localhost>", Description: "agent of a muster cluster\nKeeps a node connected to the head of its cluster, reports its state and runs what an admin asks for.",
	}
	info.RPM.BuildHost, info.RPM.Group, info.RPM.Summary = "localhost", "System Environment/Daemons", "agent of a muster cluster"
	if format == install.Deb {
		info.Release = ""
	}
	scripts, err := b.scripts(dir)
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(scripts.PostInstall))
	info.Scripts = scripts
	for _, f := range all {
		c := &files.Content{Source: f.Source, Destination: f.Path, FileInfo: &files.ContentFileInfo{Mode: os.FileMode(f.Mode), MTime: b.at, Owner: "root", Group: "root"}}
		if f.Config {
			c.Type = files.TypeConfigNoReplace
		}
		if f.Text != "" {
			c.Source = filepath.Join(filepath.Dir(scripts.PostInstall), filepath.Base(f.Path))
			if err := os.WriteFile(c.Source, []byte(f.Text), 0o644); err != nil {
				return err
			}
		}
		info.Contents = append(info.Contents, c)
	}
	info = nfpm.WithDefaults(info)
	p, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	return b.create(dir, p.ConventionalFileName(info), func(w io.Writer) error { return p.Package(info, w) })
}

// The scripts of the packages. They do nothing where systemd does not run, as
// in a chroot. An agent that is updated is started again; one that was never
// configured is not started by them.
const (
	afterInstall = `if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl try-restart muster-agent.service
fi
`
	// deb tells an upgrade by a word, rpm by a number above 0.
	beforeRemove = `case "$1" in
upgrade | 1) exit 0 ;;
esac
if command -v systemctl >/dev/null 2>&1; then
	systemctl disable muster-agent.service || :
fi
if [ -d /run/systemd/system ]; then
	systemctl stop muster-agent.service || :
fi
`
)

func (b *build) scripts(dir string) (nfpm.Scripts, error) {
	work, err := os.MkdirTemp(filepath.Dir(dir), "scripts-")
	if err != nil {
		return nfpm.Scripts{}, err
	}
	s := nfpm.Scripts{PostInstall: filepath.Join(work, "postinst"), PreRemove: filepath.Join(work, "prerm")}
	for path, text := range map[string]string{s.PostInstall: afterInstall, s.PreRemove: beforeRemove} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\nset -e\n"+text), 0o755); err != nil {
			return s, err
		}
	}
	return s, nil
}
