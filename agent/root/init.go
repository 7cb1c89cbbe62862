package root

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// candidates are where an image's first program may be, in the kernel's order
// and then where systemd is without a link to it.
var candidates = []string{"/sbin/init", "/etc/init", "/bin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd"}

// Init is an image's first program.
type Init struct {
	Path    string // as it is started, for example /sbin/init
	Systemd bool
}

// FindInit finds the image's first program and makes sure that this machine
// can run it: afterwards there is no way back.
func FindInit(newroot string) (Init, error) {
	for _, path := range candidates {
		f, err := openIn(newroot, path)
		if err != nil {
			continue
		}
		defer f.Close()
		real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
		if err != nil {
			return Init{}, err
		}
		if err := runnable(newroot, path, f); err != nil {
			return Init{}, err
		}
		return Init{Path: path, Systemd: strings.HasSuffix(real, "/systemd")}, nil
	}
	return Init{}, fmt.Errorf("the image has no init: none of %s is there", strings.Join(candidates, ", "))
}

// openIn opens a file of the image, its links followed as in the image.
func openIn(newroot, path string) (*os.File, error) {
	dir, err := os.Open(newroot)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := unix.Openat2(int(dir.Fd()), path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV, "ppc64le": elf.EM_PPC64, "s390x": elf.EM_S390}

// runnable says why a program of the image could not be started here.
func runnable(newroot, path string, f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 {
		return fmt.Errorf("the image's %s is not executable (mode %v)", path, fi.Mode())
	}
	program, err := elf.NewFile(f)
	if err != nil {
		return nil // a script, which the kernel will judge
	}
	if want, ok := machines[runtime.GOARCH]; ok && program.Machine != want {
		return fmt.Errorf("the image's %s is for %v, this machine is %s", path, program.Machine, runtime.GOARCH)
	}
	for _, p := range program.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > unix.PathMax {
			continue
		}
		name, err := io.ReadAll(p.Open())
		if err != nil {
			return err
		}
		interpreter := strings.TrimRight(string(name), "\x00")
		ld, err := openIn(newroot, interpreter)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the image's %s needs %s, which is not in the image", path, interpreter)
		}
		if err == nil {
			ld.Close()
		}
	}
	return nil
}
