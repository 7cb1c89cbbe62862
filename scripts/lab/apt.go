package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// release is the Debian or Ubuntu that runs the lab: its packages, from its
// mirrors, are what the machines boot.
type release struct {
	id       string // debian or ubuntu
	codename string // bookworm, noble, …
	log      *slog.Logger
}

func thisRelease(log *slog.Logger) (release, error) {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return release{}, fmt.Errorf("the lab takes its kernel and image from the Debian or Ubuntu it runs on: %w", err)
	}
	defer f.Close()
	values := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			values[key] = strings.Trim(value, `"'`)
		}
	}
	r := release{id: values["ID"], codename: values["VERSION_CODENAME"], log: log}
	if r.id != "debian" && r.id != "ubuntu" || r.codename == "" {
		return r, fmt.Errorf("the lab takes its kernel and image from the Debian or Ubuntu it runs on; this system is %q %q", r.id, r.codename)
	}
	return r, nil
}

// sources are one-line apt sources of the release itself, with the mirrors that apt is configured with here;
// third parties' are left out.
func (r release) sources(ctx context.Context) ([]string, error) {
	const format = `$(ORIGIN)|$(CODENAME)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)`
	list := func() ([]string, error) {
		out, err := output(ctx, exec.Command("apt-get", "indextargets", "--format", format, "Identifier: Packages"))
		if err != nil {
			return nil, err
		}
		var lines []string
		for line := range strings.Lines(out) {
			origin, rest, _ := strings.Cut(strings.TrimSpace(line), "|")
			codename, source, _ := strings.Cut(rest, "|")
			if strings.EqualFold(origin, r.id) && strings.HasPrefix(codename, r.codename) && !slices.Contains(lines, source) {
				lines = append(lines, source)
			}
		}
		return lines, nil
	}
	lines, err := list()
	if err == nil && len(lines) == 0 { // apt knows a source's origin only once it has its lists
		if err = r.update(ctx); err == nil {
			lines, err = list()
		}
	}
	if err == nil && len(lines) == 0 {
		err = fmt.Errorf("apt here has no source of %s %s; see /etc/apt/sources.list and sources.list.d", r.id, r.codename)
	}
	return lines, err
}

func (r release) update(ctx context.Context) error {
	r.log.Info("fetching the package lists")
	err := run(ctx, "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Update::Error-Mode=any", "update")
	if err != nil {
		return fmt.Errorf("the package lists could not be fetched; is the mirror of /etc/apt/sources.list reachable? %w", err)
	}
	return nil
}

// unpack downloads packages and unpacks them into dir without installing
// them. Lists that are missing or too old are fetched and the download tried
// once more.
func (r release) unpack(ctx context.Context, dir string, resolve func(context.Context) ([]string, error)) error {
	debs := filepath.Join(dir, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(debs)
	err := r.download(ctx, debs, resolve)
	if err != nil && ctx.Err() == nil {
		r.log.Info("a download failed, perhaps because the package lists are old", "error", err)
		if err = r.update(ctx); err == nil {
			err = r.download(ctx, debs, resolve)
		}
	}
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range files {
		if err := run(ctx, "dpkg-deb", "-x", deb, dir); err != nil {
			return err
		}
	}
	return nil
}

func (r release) download(ctx context.Context, into string, resolve func(context.Context) ([]string, error)) error {
	packages, err := resolve(ctx)
	if err != nil {
		return err
	}
	r.log.Info("downloading", "packages", strings.Join(packages, " "))
	// The sandbox user may not write into a root-owned cache.
	cmd := exec.Command("apt-get", append([]string{"-q", "-o", "APT::Sandbox::User=root", "download"}, packages...)...)
	cmd.Dir = into
	if _, err := output(ctx, cmd); err != nil {
		return fmt.Errorf("downloading %s: %w", strings.Join(packages, ", "), err)
	}
	return nil
}

var kernelPackage = regexp.MustCompile(`^linux-(image|modules)(-unsigned)?-[0-9]`)

// kernelPackages follows a metapackage (linux-image-cloud-amd64,
// linux-image-virtual) to the packages with the kernel and its modules.
func (r release) kernelPackages(ctx context.Context, meta string) ([]string, error) {
	var found []string
	for queue := []string{meta}; len(queue) > 0; queue = queue[1:] {
		out, err := output(ctx, exec.Command("apt-cache", "depends", "--no-recommends", "--no-suggests",
			"--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", queue[0]))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			_, name, ok := strings.Cut(strings.TrimSpace(line), "epends: ")
			if ok && kernelPackage.MatchString(name) && !slices.Contains(found, name) {
				found, queue = append(found, name), append(queue, name)
			}
		}
	}
	if len(found) == 0 {
		return nil, errors.New("apt knows no package " + meta)
	}
	return found, nil
}
