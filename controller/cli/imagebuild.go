package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"muster/images"
	"muster/images/build"
	"muster/images/recipe"
	"muster/shared/client"
	"muster/shared/fault"
	"muster/shared/object"
)

// imageCache is where bases of images are kept.
const imageCache = "/var/cache/muster/images"

// buildFlags are those of `image build`.
type buildFlags struct {
	progress progressFlag
	packages []string
	cache    string
	fresh    bool
	verbose  bool
}

func (m *muster) buildCommand() *cobra.Command {
	var f buildFlags
	c := &cobra.Command{
		Use: "build NAME RECIPE", Short: "Make an image from a recipe, or from a distro of the head",
		Long: `Make what RECIPE says the content of the image NAME, which is created if there is
none. RECIPE is a file (TOML, or YAML where it ends with .yaml), or the name of a
distro, of which a minimal system is made. As root, on this machine:

  packages = ["systemd-sysv", "udev", "openssh-server"]
  exclude  = ["usr/share/doc/*"]
  epoch    = 1700000000            # no file is newer: equal builds, equal bytes

  [base]                           # exactly one of tool, source, image, distro
  tool    = "mmdebstrap"           # or "dnf", with repos = [{url, key}]
  release = "bookworm"
  mirrors = ["http://deb.debian.org/debian"]
  # source = "root.tar.zst"        # whatever import takes, docker://… too
  # image  = "other:3"             # an image of the head
  # distro = "debian12"            # a distro of the head

  [[files]]
  path    = "/etc/motd"            # with a slash at its end a directory
  content = "Welcome\n"            # or source = "file", or link = "target"
  owner   = "root:root"
  mode    = "0644"

  [[scripts]]                      # as root in the new system, after the files
  run = "systemctl enable ssh"     # or file = "setup.sh"

The base with its packages is kept, so that other files and scripts need no
bootstrapping. Host keys, machine ids, logs and what package managers cache do
not get into the image; credentials = true keeps the keys.`,
		Args: cobra.ExactArgs(2), ValidArgsFunction: thenFile(m.completeNames(m.spec(object.KindImage))),
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.buildImage(cmd.Context(), args[0], args[1], f)
		},
	}
	c.Flags().StringSliceVar(&f.packages, "package", nil, "install these `packages` too")
	c.Flags().StringVar(&f.cache, "cache", imageCache, "`directory` that keeps bases")
	c.Flags().BoolVar(&f.fresh, "fresh", false, "bootstrap anew, though the cache has the base")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "show all that the programs say")
	f.progress.flags(c)
	must(c.MarkFlagDirname("cache"))
	return c
}

func (m *muster) buildImage(ctx context.Context, name, from string, f buildFlags) error {
	steps, err := m.steps(f.progress, f.verbose)
	if err != nil {
		return err
	}
	c, err := m.connect()
	if err != nil {
		return err
	}
	opt := build.Options{Cache: f.cache, Temp: m.temp(), Fresh: f.fresh, Proxy: m.proxies(), Watcher: steps}
	return m.makeImage(ctx, name, f.progress, func(path string) (images.Info, error) {
		if opt.Recipe, opt.Dir, err = m.recipe(ctx, c, from); err != nil {
			return images.Info{}, err
		}
		opt.Recipe.Packages = append(opt.Recipe.Packages, f.packages...)
		if err := m.fromHead(ctx, c, &opt); err != nil {
			return images.Info{}, err
		}
		info, err := build.Build(ctx, opt, path)
		steps.end()
		if failed := new(build.Failed); errors.As(err, &failed) && !f.verbose {
			for _, line := range failed.Said {
				fmt.Fprintln(m.Stderr, "  "+printable(line))
			}
		}
		if err == nil {
			fmt.Fprintf(m.Stderr, "built from %s: %s\n", printable(from), made(info))
		}
		return info, err
	})
}

// recipe reads a recipe's file, or makes one of a distro's name.
func (m *muster) recipe(ctx context.Context, c *client.Client, from string) (r recipe.Recipe, dir string, err error) {
	f, err := os.Open(from)
	switch {
	case err == nil:
		defer f.Close()
		r, err = recipe.Read(from, f)
		if err != nil {
			return r, "", fmt.Errorf("%s: %w", from, err)
		}
		dir, err = filepath.Abs(filepath.Dir(from))
	case errors.Is(err, os.ErrNotExist):
		var d object.Distro
		if d, err = client.Get[object.Distro](ctx, c, object.KindDistro, from); fault.Is(err, fault.NotFound) {
			err = fmt.Errorf("%q is neither a file here nor a distro of the head", from)
		}
		r.Base.Distro, r.Packages = from, bootable(d.Packaging)
	}
	if epoch := m.Getenv("SOURCE_DATE_EPOCH"); err == nil && epoch != "" && r.Epoch == 0 {
		if r.Epoch, err = strconv.ParseInt(epoch, 10, 64); err != nil {
			err = fmt.Errorf("SOURCE_DATE_EPOCH is %q, no number of seconds", epoch)
		}
	}
	return r, dir, err
}

// bootable are packages that make a minimal base what a compute node boots.
func bootable(packaging string) []string {
	if packaging == object.RPM {
		return []string{"systemd", "systemd-udev", "kmod", "iproute", "procps-ng", "passwd", "util-linux", "dbus"}
	}
	return []string{"systemd-sysv", "udev", "kmod", "iproute2", "procps", "passwd", "dbus"}
}

// maxSources bounds a distro's file for its package manager.
const maxSources = 1 << 20

// fromHead fetches what the base has from the head.
func (m *muster) fromHead(ctx context.Context, c *client.Client, opt *build.Options) error {
	base := &opt.Recipe.Base
	if base.Image != "" {
		path, err := m.cachedImage(ctx, c, base.Image, opt.Cache, opt.Watcher)
		base.Image, base.Source = "", path
		return err
	}
	if base.Distro == "" {
		return nil
	}
	d, err := client.Get[object.Distro](ctx, c, object.KindDistro, base.Distro)
	if err != nil {
		return err
	}
	if d.Packaging == object.APK {
		return fmt.Errorf("the distro %s has packages of apk, of which no base can be bootstrapped here; let the base be a source, such as docker://alpine", d.Name)
	}
	var sources bytes.Buffer
	if _, err := c.Download(ctx, client.Path(object.KindDistro, base.Distro, "sources"), &sources, func(_, _ int64) {}); err != nil {
		return err
	}
	if sources.Len() > maxSources {
		return fmt.Errorf("the sources of the distro %s are larger than %d bytes", d.Name, maxSources)
	}
	opt.Distro = &build.Distro{Packaging: d.Packaging, Release: d.Release, Sources: sources.String()}
	return nil
}

// cachedImage gives the content of an image of the head as a file, which it
// fetches unless it has it.
func (m *muster) cachedImage(ctx context.Context, c *client.Client, name, cache string, w build.Watcher) (string, error) {
	image, err := client.Get[object.Image](ctx, c, object.KindImage, name)
	if err != nil {
		return "", err
	}
	squash := image.Squash()
	if squash == nil {
		return "", fmt.Errorf("the image %s has no content", name)
	}
	path := filepath.Join(cache, "base-image-"+squash.UID+".squashfs")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	w.Step("fetch the image " + name)
	return path, m.fetchTo(ctx, c, client.Path(object.KindImage, name, "content"), path, w.At)
}

func (m *muster) proxies() (env []string) {
	for _, name := range []string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
		if v := m.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}
