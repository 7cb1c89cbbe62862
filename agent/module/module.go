// Package module loads kernel modules in the initramfs: for each device that
// the kernel finds, now or later, and the ones that every boot needs.
//
// It works from the list that the builder of the archive made (see
// initramfs/modindex) and looks into no module. It must not know what a device
// is good for: the archive holds only what booting may need.
package module

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"muster/initramfs/modindex"
)

// Loader loads the modules of one archive, each once.
type Loader struct {
	ix   *modindex.Index
	root string
	log  *slog.Logger

	mu    sync.Mutex
	done  map[string]*result
	seen  map[string]bool // modaliases
	later []string        // modaliases that are not wanted yet
	reach reach
}

// reach says for which devices drivers are loaded.
type reach int

const (
	cards      reach = iota // what is a network card by all that is known
	anyNetwork              // what may lead to one
	everything
)

type result struct {
	once sync.Once
	err  error
}

// Open reads the list for the running kernel below root. An archive for
// another kernel is an error that names both.
func Open(root string, log *slog.Logger) (*Loader, error) {
	release, err := kernelRelease()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(root, modindex.Path(release)))
	if errors.Is(err, fs.ErrNotExist) {
		have, _ := filepath.Glob(filepath.Join(root, modindex.Path("*")))
		for i, h := range have {
			have[i] = filepath.Base(filepath.Dir(h))
		}
		if len(have) == 0 {
			return nil, fmt.Errorf("the boot archives hold no modules; kernel %s must have its drivers built in", release)
		}
		return nil, fmt.Errorf("the boot archives hold modules for kernel %s, but %s runs: kernel and initramfs of the boot configuration do not belong together", strings.Join(have, ", "), release)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ix, err := modindex.Parse(f)
	if err != nil {
		return nil, err
	}
	return &Loader{ix: ix, root: root, log: log, done: map[string]*result{}, seen: map[string]bool{}}, nil
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// Common loads what every boot needs, and returns when it is loaded.
func (l *Loader) Common() error {
	errs := make([]error, len(l.ix.Boot))
	var wg sync.WaitGroup
	for i, name := range l.ix.Boot {
		wg.Go(func() { errs[i] = l.load(name) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Load loads modules by name with what they need. Names that the archive does
// not list are taken as built in.
func (l *Loader) Load(names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, l.load(name))
	}
	return errors.Join(errs...)
}

// load loads a module after what it needs. Several callers may want the same
// one: the first loads, the others wait for it.
func (l *Loader) load(name string) error {
	steps, _ := l.ix.Order(name)
	for _, s := range steps {
		l.mu.Lock()
		r := l.done[s.Name]
		if r == nil {
			r = &result{}
			l.done[s.Name] = r
		}
		l.mu.Unlock()
		r.once.Do(func() { r.err = l.insert(s.Module) })
		if r.err != nil && !s.Optional {
			return r.err
		}
	}
	return nil
}

func (l *Loader) insert(m modindex.Module) error {
	f, err := os.Open(filepath.Join(l.root, modindex.Dir(l.ix.Release), m.Path))
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		// ENODEV is a driver that finds no hardware of its own.
		return fmt.Errorf("module %s: %w", m.Name, err)
	}
	return nil
}

// Devices loads drivers for what is there and for what appears, until ctx
// ends; cold is closed when what was there at first has its driver. It begins
// with network cards; only if found says then that the one that is looked for
// is not there, the others follow, and what is surely no way to a network is
// left for Rest.
// The kernel's events, not waiting, tell of devices that a driver brings.
func (l *Loader) Devices(ctx context.Context, found func() bool, cold chan<- struct{}) error {
	events, err := listen()
	if err != nil {
		close(cold)
		return fmt.Errorf("no events from the kernel: %w", err)
	}
	defer events.Close()
	return l.watch(ctx, events, found, cold)
}

// watch is Devices with a given source of events, one for each read.
func (l *Loader) watch(ctx context.Context, events io.ReadCloser, found func() bool, cold chan<- struct{}) error {
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()
	go func() {
		if l.present(); !found() {
			l.widen(anyNetwork)
		}
		close(cold)
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := events.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // some were lost: look again
			go l.present()
		case err != nil:
			return fmt.Errorf("events from the kernel: %w", err)
		default:
			alias := addedAlias(buf[:n])
			if names := l.wanted(alias); names != nil {
				go l.drive(alias, names)
			}
		}
	}
}

// present loads drivers for all devices in sysfs and waits for them. Going
// through the buses is much faster than walking all of /sys/devices.
func (l *Loader) present() {
	var jobs sync.WaitGroup
	defer jobs.Wait()
	files, _ := filepath.Glob("/sys/bus/*/devices/*/modalias")
	slices.SortStableFunc(files, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil {
			if names := l.wanted(string(text)); names != nil {
				jobs.Go(func() { l.drive(string(text), names) })
			}
		}
	}
}

// rank puts the buses first on which network cards are.
func rank(file string) int {
	bus, _, _ := strings.Cut(strings.TrimPrefix(file, "/sys/bus/"), "/")
	if i := slices.Index([]string{"virtio", "pci", "vmbus", "xen", "usb"}, bus); i >= 0 {
		return i
	}
	return 100
}

// of says from which reach on a device gets its driver. Probing disks takes
// seconds; a feature of the processor and what is storage, display or
// multimedia by its PCI class is surely no way to the network.
func of(modalias string) reach {
	bus, rest, _ := strings.Cut(modalias, ":")
	switch bus {
	case "virtio":
		if strings.HasPrefix(rest, "d00000001v") {
			return cards
		}
	case "vmbus", "xen":
		return cards
	case "cpu":
		return everything
	case "pci":
		_, class, _ := strings.Cut(rest, "bc")
		switch {
		case strings.HasPrefix(class, "02"):
			return cards
		case strings.HasPrefix(class, "01"), strings.HasPrefix(class, "03"), strings.HasPrefix(class, "04"):
			return everything
		}
	}
	return anyNetwork
}

// Rest loads what Devices has put off, and lets it put off nothing more. It
// does not wait for the modules.
func (l *Loader) Rest() {
	go l.widen(everything)
}

// widen loads what is wanted with a greater reach, and waits for it.
func (l *Loader) widen(to reach) {
	l.mu.Lock()
	if to <= l.reach {
		l.mu.Unlock()
		return
	}
	l.reach = to
	var now []string
	l.later = slices.DeleteFunc(l.later, func(modalias string) bool {
		if of(modalias) <= to {
			now = append(now, modalias)
			return true
		}
		return false
	})
	l.mu.Unlock()
	var jobs sync.WaitGroup
	for _, modalias := range now {
		jobs.Go(func() { l.drive(modalias, l.ix.Match(modalias)) })
	}
	jobs.Wait()
}

// wanted gives the modules for a modalias that was not seen before and is
// within reach.
func (l *Loader) wanted(modalias string) []string {
	modalias = strings.TrimSpace(modalias)
	l.mu.Lock()
	defer l.mu.Unlock()
	if modalias == "" || l.seen[modalias] {
		return nil
	}
	l.seen[modalias] = true
	if of(modalias) > l.reach {
		l.later = append(l.later, modalias)
		return nil
	}
	return l.ix.Match(modalias)
}

func (l *Loader) drive(modalias string, names []string) {
	for _, name := range names {
		if err := l.load(name); err != nil {
			l.log.Warn("a driver could not be loaded", "error", err, "device", strings.TrimSpace(modalias))
		}
	}
}

// listen opens the kernel's channel of device events.
func listen() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, err
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "uevents"), nil
}

// addedAlias gives the modalias of an event that says a device was added.
// An event is "ACTION@PATH" and KEY=VALUE entries, each ended by a zero.
func addedAlias(event []byte) string {
	added, alias := false, ""
	for entry := range bytes.SplitSeq(event, []byte{0}) {
		key, value, _ := strings.Cut(string(entry), "=")
		switch key {
		case "ACTION":
			added = value == "add"
		case "MODALIAS":
			alias = value
		}
	}
	if !added {
		return ""
	}
	return alias
}
