package install

import (
	"archive/tar"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// The files that go with the programs.
var (
	//go:embed files/muster-agent.service
	agentUnit string
	//go:embed files/muster.service
	headUnit string
	//go:embed files/agent.conf
	agentConf string
)

// File is one that a package installs.
type File struct {
	Path   string // absolute, on the target
	Source string // a file here, or
	Text   string // the content itself
	Mode   int64
	Config bool // the admin's own once it is there
}

// AgentFiles are what the package muster-agent installs.
func AgentFiles(program string) []File {
	return []File{
		{Path: "/usr/bin/muster-agent", Source: program, Mode: 0o755},
		{Path: "/usr/lib/systemd/system/muster-agent.service", Text: agentUnit, Mode: 0o644},
		{Path: "/etc/muster/agent.conf", Text: agentConf, Mode: 0o644, Config: true},
	}
}

// HeadFiles are what the package muster installs.
func HeadFiles(program, agent, pam string) []File {
	return []File{
		{Path: "/usr/bin/muster", Source: program, Mode: 0o755},
		{Path: "/usr/bin/muster-agent", Source: agent, Mode: 0o755},
		{Path: "/usr/bin/muster-pam", Source: pam, Mode: 0o755},
		{Path: "/usr/lib/systemd/system/muster.service", Text: headUnit, Mode: 0o644},
	}
}

// WriteTar writes a package that tar unpacks in the root of a system. The same
// files and time give the same bytes. Configuration is left out: tar would
// write over the admin's.
func WriteTar(w io.Writer, files []File, at time.Time) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, f := range files {
		if f.Config {
			continue
		}
		if err := f.write(t, at); err != nil {
			return fmt.Errorf("packing %s: %w", f.Path, err)
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func (f File) write(t *tar.Writer, at time.Time) error {
	var content io.Reader = strings.NewReader(f.Text)
	h := &tar.Header{Name: strings.TrimPrefix(f.Path, "/"), Mode: f.Mode, Size: int64(len(f.Text)), ModTime: at, Uname: "root", Gname: "root", Format: tar.FormatUSTAR}
	if f.Source != "" {
		in, err := os.Open(f.Source)
		if err != nil {
			return err
		}
		defer in.Close()
		info, err := in.Stat()
		if err != nil {
			return err
		}
		content, h.Size = in, info.Size()
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(t, content)
	return err
}

var notInVersion = regexp.MustCompile(`[^A-Za-z0-9.~+]+`)

// PackageVersion makes of a build's version, a tag or a commit, one that every
// packaging system takes: it begins with a digit and has no dash.
func PackageVersion(build string) string {
	v := strings.Trim(notInVersion.ReplaceAllString(build, "."), ".")
	if rest := strings.TrimPrefix(v, "v"); rest != "" && rest[0] >= '0' && rest[0] <= '9' && strings.Contains(rest, ".") {
		return rest
	}
	return "0.0~" + v
}

// TarName is the name of a package for tar.
func TarName(holds, version, cpu string) string {
	return holds + "-" + version + "-" + cpu + ".tar.gz"
}

// NativeCPU is the processor of this machine.
func NativeCPU() string {
	if runtime.GOARCH == "arm64" {
		return ARM
	}
	return X86
}

// own makes the package of this head's own programs, so that a head that was
// only built, and given no packages, can still install its like. One that is
// as new as the programs is kept. It is nil where a program is missing.
func (s *shelf) own(holds string) (*Package, error) {
	files := AgentFiles(s.programs.Agent)
	if holds == Head {
		files = HeadFiles(s.programs.Head, s.programs.Agent, s.programs.PAM)
	}
	var newest time.Time
	for _, f := range files {
		if f.Source == "" {
			continue
		}
		info, err := os.Stat(f.Source)
		if err != nil {
			return nil, nil
		}
		if info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	version := PackageVersion(s.version)
	p := Package{Name: TarName(holds, version, NativeCPU()), Holds: holds, Version: version, CPU: NativeCPU(), PkgSys: Tar}
	p.path = filepath.Join(s.made, p.Name)
	if info, err := os.Stat(p.path); err != nil || !info.ModTime().Equal(newest) {
		if err := s.pack(p.path, files, newest); err != nil {
			return nil, err
		}
	}
	info, err := os.Stat(p.path)
	if err != nil {
		return nil, err
	}
	p.Size, p.modified = info.Size(), info.ModTime()
	p.SHA256, err = s.sum(p)
	return &p, err
}

func (s *shelf) pack(path string, files []File, at time.Time) error {
	if err := os.MkdirAll(s.made, 0o700); err != nil {
		return err
	}
	out, err := os.CreateTemp(s.made, ".half-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	if err := WriteTar(out, files, at); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	if err := os.Chtimes(out.Name(), at, at); err != nil {
		return err
	}
	return os.Rename(out.Name(), path)
}
