package root

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"muster/agent/disk"
)

// DiskLabel names the partition and the file system that the style disked
// makes, so that it knows them again.
const DiskLabel = "muster-root"

// stateDir is where a disk says which image it holds, in its root directory.
const stateDir = ".muster"

// DiskState is what a disk says of itself. While Complete is not set the disk
// holds something between two images, and nothing may be started from it.
type DiskState struct {
	Image    string `json:"image"` // SHA-256
	Name     string `json:"name"`
	Complete bool   `json:"complete"`
}

// fileSystems are those that can be made, the better ones first, with the
// programs for it, which are the image's.
var fileSystems = []struct {
	kind     string
	programs []string
	args     []string
}{
	{"ext4", []string{"/sbin/mke2fs", "/usr/sbin/mke2fs"}, []string{"-q", "-F", "-t", "ext4", "-E", "nodiscard", "-L"}},
	{"xfs", []string{"/sbin/mkfs.xfs", "/usr/sbin/mkfs.xfs"}, []string{"-q", "-f", "-K", "-L"}},
}

// MakeFileSystem makes a file system on a device by the programs of the image
// that is mounted in Squash: this archive has none, and they are of the
// distribution that will use it. run runs a command to its end.
func (l Layout) MakeFileSystem(device, label string, run func(*exec.Cmd) error) error {
	for _, fsys := range fileSystems {
		for _, program := range fsys.programs {
			f, err := openIn(l.Squash, program)
			if err != nil {
				continue
			}
			f.Close()
			return l.inImage(run, program, append(slices.Clone(fsys.args), label, device)...)
		}
	}
	return errors.New("the image has neither mke2fs (package e2fsprogs) nor mkfs.xfs (xfsprogs), which make the file system on the disk: add one to the image")
}

// inImage runs a program of the image, which sees the devices of the machine.
func (l Layout) inImage(run func(*exec.Cmd) error, program string, args ...string) error {
	dev := filepath.Join(l.Squash, "dev")
	if err := unix.Mount("/dev", dev, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("the image has no directory /dev: %w", err)
	}
	defer unix.Unmount(dev, unix.MNT_DETACH)
	messages, err := os.CreateTemp("", "output")
	if err != nil {
		return err
	}
	defer os.Remove(messages.Name())
	defer messages.Close()
	cmd := exec.Command(program, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = messages, messages
	cmd.SysProcAttr = &unix.SysProcAttr{Chroot: l.Squash}
	if err := run(cmd); err != nil {
		text, _ := os.ReadFile(messages.Name())
		return fmt.Errorf("the image's %s: %w: %.500s", program, err, text)
	}
	return nil
}

// MountSquash mounts an image's file by itself.
func (l Layout) MountSquash(image *os.File) error { return mountSquash(image, l.Squash) }

// UnmountSquash takes it away.
func (l Layout) UnmountSquash() {
	for unix.Unmount(l.Squash, unix.MNT_DETACH) == nil {
	}
}

// MountDisk mounts a file system on dir, which it makes.
func MountDisk(d disk.Device, kind, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(d.Path, dir, kind, unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mounting %s (%s): %w", d.Path, kind, err)
	}
	return nil
}

// ReadState reads what a mounted disk says of itself. One that says nothing
// must be empty: ours says so, with nil.
func ReadState(dir string) (*DiskState, error) {
	text, err := os.ReadFile(filepath.Join(dir, stateDir, "state"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, empties(dir)
	}
	if err != nil {
		return nil, err
	}
	var s DiskState
	if json.Unmarshal(text, &s) != nil {
		return &DiskState{}, nil // a cut power: nothing is known but that it is ours
	}
	return &s, nil
}

// ErrForeign is that of a disk which holds somebody else's files.
var ErrForeign = errors.New("it holds files that muster did not write")

func empties(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "lost+found" && e.Name() != stateDir {
			return fmt.Errorf("%w: /%s", ErrForeign, e.Name())
		}
	}
	return nil
}

// writeState replaces the state and returns when that and all that was written
// before is on the disk.
func writeState(dir string, s DiskState) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	at := filepath.Join(dir, stateDir)
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	root, err := os.Open(at)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := unix.Syncfs(int(root.Fd())); err != nil {
		return fmt.Errorf("writing to the disk: %w", err)
	}
	tmp := filepath.Join(at, "state.new")
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(at, "state")); err != nil {
		return err
	}
	if err := unix.Syncfs(int(root.Fd())); err != nil {
		return fmt.Errorf("writing to the disk: %w", err)
	}
	return nil
}

// MarkDisk has a disk that muster wrote say that it holds an image, or while it
// is not complete, that nothing may be started from it. dir is where it is
// mounted; other roots are left alone.
func MarkDisk(dir string, s DiskState) error {
	if _, err := os.Lstat(filepath.Join(dir, stateDir, "state")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return writeState(dir, s)
}

// Install writes the image that is mounted in Squash to the disk that is
// mounted in New. Cut off at any point it is to be called again.
func (l Layout) Install(s DiskState) (Changes, error) {
	s.Complete = false
	if err := writeState(l.New, s); err != nil {
		return Changes{}, err
	}
	done, err := Sync(l.Squash, l.New, stateDir, "lost+found")
	if err != nil {
		return done, fmt.Errorf("writing the image to the disk: %w", err)
	}
	s.Complete = true
	return done, writeState(l.New, s)
}
