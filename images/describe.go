package images

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"

	"muster/images/squashfs"
)

// Contents is what the head tells of an image without booting it.
type Contents struct {
	ID      string // of os-release(5), such as "debian"; empty when it has none
	Version string // such as "12"
	Name    string // for people, such as "Debian GNU/Linux 12 (bookworm)"
	Init    string // what is started in it, such as "/usr/lib/systemd/systemd"
	Systemd bool
	Files   uint32 // directories and all
}

// Describe looks into the size bytes of an image that squashfs.Check accepted.
func Describe(image io.ReaderAt, size int64) (Contents, error) {
	r, err := squashfs.Open(image, size)
	if err != nil {
		return Contents{}, err
	}
	c := Contents{Files: r.Superblock().Inodes}
	for _, name := range []string{"/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/etc/init", "/bin/init", "/bin/sh"} {
		e, err := r.Lookup(name)
		if err == nil && e.Mode.IsRegular() && e.Mode&0o111 != 0 {
			c.Init = name
			break
		}
	}
	if e, err := r.Lookup("/usr/lib/systemd/systemd"); err == nil {
		c.Systemd = e.Mode.IsRegular()
	}
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		b, err := r.ReadFile(name, 64<<10)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return c, err
		}
		c.release(b)
		break
	}
	return c, nil
}

// release reads os-release(5): assignments as a shell would take them.
func (c *Contents) release(b []byte) {
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		key, value, _ := strings.Cut(s.Text(), "=")
		value = strings.Trim(strings.TrimSpace(value), `"'`)
		switch key {
		case "ID":
			c.ID = value
		case "VERSION_ID":
			c.Version = value
		case "PRETTY_NAME":
			c.Name = value
		}
	}
}
