package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Assets are what the machines boot, made from the packages of the release
// that runs the lab.
type Assets struct {
	Kernel  string // the distribution's kernel for virtual machines
	Modules string // its lib/modules/VERSION, without modules.dep
	Image   string // tar of a root file system with systemd, without any agent
	Busybox string // a static busybox, for benchmarks
	Cache   string // the directory that holds them
}

// imagePackages make a minimal base system one that a compute node boots: an
// init, devices, a network, users' sessions.
var imagePackages = []string{"systemd-sysv", "udev", "kmod", "iproute2", "procps", "passwd", "dbus"}

// imageRecipe is what the image is made with, beside the packages. It is part
// of the cache's key.
var imageRecipe = []string{
	"--variant=minbase",
	"--aptopt=APT::Install-Recommends \"false\"",
	"--aptopt=Acquire::Languages \"none\"",
	"--dpkgopt=path-exclude=/usr/share/doc/*",
	"--dpkgopt=path-exclude=/usr/share/man/*",
	"--dpkgopt=path-exclude=/usr/share/locale/*",
	"--include=" + strings.Join(imagePackages, ","),
}

// MakeAssets returns the assets in the cache at dir, making those that are
// missing: about a minute and 100 MB of downloads the first time.
func MakeAssets(ctx context.Context, dir string, log *slog.Logger) (*Assets, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("the lab boots x86-64 machines from x86-64 packages; this host is %s", runtime.GOARCH)
	}
	rel, err := thisRelease(log)
	if err != nil {
		return nil, err
	}
	c := cache{dir: dir, log: log}
	assets := &Assets{Cache: dir}
	if assets.Kernel, assets.Modules, err = kernel(ctx, c, rel, rel.virtualKernel()); err != nil {
		return nil, err
	}
	if assets.Image, err = image(ctx, c, rel); err != nil {
		return nil, err
	}
	assets.Busybox, err = busybox(ctx, c, rel)
	return assets, err
}

// virtualKernel has virtio only and is small.
func (r release) virtualKernel() string {
	if r.id == "ubuntu" {
		return "linux-image-virtual"
	}
	return "linux-image-cloud-amd64"
}

func kernel(ctx context.Context, c cache, rel release, meta string) (file, modules string, err error) {
	dir, err := c.entry(ctx, meta, "1 "+rel.codename, func(ctx context.Context, dir string) error {
		return rel.unpack(ctx, dir, func(ctx context.Context) ([]string, error) { return rel.kernelPackages(ctx, meta) })
	})
	if err != nil {
		return "", "", err
	}
	if file, err = theOne(dir, "boot/vmlinuz-*"); err != nil {
		return "", "", err
	}
	version := strings.TrimPrefix(filepath.Base(file), "vmlinuz-")
	for _, lib := range []string{"lib", "usr/lib"} { // newer releases have it below usr
		modules = filepath.Join(dir, lib, "modules", version)
		if _, err = os.Stat(filepath.Join(modules, "kernel")); err == nil {
			return file, modules, nil
		}
	}
	return "", "", fmt.Errorf("the packages of %s have no modules for %s: %w", meta, file, err)
}

func theOne(dir, pattern string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("one file %s was expected in %s, there are %d; remove that directory to have it made again", pattern, dir, len(found))
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

func image(ctx context.Context, c cache, rel release) (string, error) {
	return system(ctx, c, rel, "image", imageRecipe)
}

// MakeSystem returns the tar of an installed system with systemd and curl,
// which knows nothing of muster, from the same cache.
func MakeSystem(ctx context.Context, dir string, log *slog.Logger) (string, error) {
	rel, err := thisRelease(log)
	if err != nil {
		return "", err
	}
	return system(ctx, cache{dir: dir, log: log}, rel, "system", append(slices.Clone(imageRecipe), "--include=curl"))
}

func system(ctx context.Context, c cache, rel release, name string, how []string) (string, error) {
	recipe := "1 " + rel.codename + " " + strings.Join(how, " ")
	dir, err := c.entry(ctx, name, recipe, func(ctx context.Context, dir string) error {
		sources, err := rel.sources(ctx)
		if err != nil {
			return err
		}
		list := filepath.Join(dir, "sources.list")
		if err := os.WriteFile(list, []byte(strings.Join(sources, "\n")+"\n"), 0o644); err != nil {
			return err
		}
		args := append([]string{"--mode=root"}, how...)
		cmd := exec.Command("mmdebstrap", append(args, rel.codename, filepath.Join(dir, "image.tar"), list)...)
		// TMPDIR: what an interrupted run leaves goes with the half entry. The epoch makes equal images equal files.
		cmd.Env = append(os.Environ(), "TMPDIR="+dir, "SOURCE_DATE_EPOCH=1700000000")
		if _, err = output(ctx, cmd); errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("install mmdebstrap (scripts/deps demo does): %w", err)
		} else if err != nil {
			return fmt.Errorf("building a root file system from %s: %w", strings.Join(sources, "; "), err)
		}
		return nil
	})
	return filepath.Join(dir, "image.tar"), err
}

func busybox(ctx context.Context, c cache, rel release) (string, error) {
	dir, err := c.entry(ctx, "busybox", "1 "+rel.codename, func(ctx context.Context, dir string) error {
		return rel.unpack(ctx, dir, func(context.Context) ([]string, error) { return []string{"busybox-static"}, nil })
	})
	if err != nil {
		return "", err
	}
	for _, bin := range []string{"bin/busybox", "usr/bin/busybox"} {
		if _, err := os.Stat(filepath.Join(dir, bin)); err == nil {
			return filepath.Join(dir, bin), nil
		}
	}
	return "", fmt.Errorf("the package busybox-static has no busybox in bin or usr/bin; see %s", dir)
}
