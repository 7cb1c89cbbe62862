// Package boot is the agent as process 1 of a machine that has nothing yet: it
// makes the machine a node and hands it over to its image.
//
// The steps are those of shared/wire: agent (the first call to the head),
// enrol, image, root. A step that fails is told to the head and on the console
// and tried again, for as long as it takes; meanwhile the link stands, so that
// an admin can enter the machine. It never reboots by itself and never ends:
// a panic in a step counts as its failure. A panic elsewhere would end process
// 1, which the kernel answers by stopping; it is told to reboot then, after
// half a minute in which the console can be read.
//
// The package orders the work of the others and does none itself.
package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"muster/agent/command"
	"muster/agent/head"
	"muster/agent/identity"
	"muster/agent/link"
	"muster/agent/module"
	"muster/agent/network"
	"muster/agent/report"
	"muster/agent/root"
	"muster/agent/shell"
	"muster/agent/stream"
	"muster/shared/wire"
)

const (
	minDelay = 250 * time.Millisecond
	maxDelay = 10 * time.Second
	// panicReboot is after how many seconds the kernel reboots if process 1 dies.
	panicReboot = "30"
	// patience is how long a boot may take until status is reported from the
	// initramfs too: a machine that gets through in time reports from its image.
	patience = 5 * time.Second
)

// machine is this one.
type machine struct {
	version string
	line    Line
	console *Console
	log     *slog.Logger
	dialer  head.Dialer

	modules  *module.Loader // nil when the archive has none
	common   chan error     // the result of loading what every boot needs
	commands *command.Runner
	lease    *network.Lease
	key      chan *identity.Key
	id       *identity.Identity
	client   *head.Client
	stamps   *stamps
	resume   chan struct{}
	renewals int             // of the one-time key
	pulled   string          // SHA-256 of the image that is there, whole
	flow     *stream.Process // of the image, where that is read while it is fetched

	mu      sync.Mutex
	stopped string // why the boot is held up
	linked  context.CancelFunc
	linking sync.WaitGroup
}

// Run boots the machine. It does not return.
func Run(version string) {
	defer func() { // nothing is left to do but to be seen
		fmt.Fprintf(os.Stderr, "muster: %v\n%s", recover(), debug.Stack())
		select {}
	}()
	m := start(version)
	ctx := context.Background()
	m.prepare(ctx)
	m.until(ctx, wire.StepAgent, m.call)
	m.until(ctx, wire.StepEnrol, m.enrol)
	m.link(ctx)
	m.until(ctx, wire.StepImage, m.become)
}

// start mounts what is needed for everything else, and finds the console.
func start(version string) *machine {
	errs := root.Mount()
	m := &machine{
		version: version, console: NewConsole(openConsole()), dialer: head.Dialer{Version: version},
		common: make(chan error, 1), key: make(chan *identity.Key, 1), resume: make(chan struct{}, 1), id: &identity.Identity{},
	}
	m.log = slog.New(m.console)
	m.commands = command.New(m.log)
	debug.SetGCPercent(400) // memory is there, time is not
	m.log.Info("muster-agent " + version)
	for _, err := range errs {
		m.log.Warn(err.Error())
	}
	return m
}

// openConsole gives the kernel's console, or what process 1 was started with.
func openConsole() *os.File {
	if f, err := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0); err == nil {
		return f
	}
	return os.Stderr
}

// prepare starts all that needs no network, and brings the network up.
func (m *machine) prepare(ctx context.Context) {
	go m.reap()
	os.WriteFile("/proc/sys/kernel/panic", []byte(panicReboot), 0)
	text, err := os.ReadFile("/proc/cmdline")
	if err == nil {
		m.line, err = ParseLine(string(text))
	}
	if err != nil {
		m.log.Error(err.Error())
	}
	m.drivers(ctx)
	m.links()
	if m.line.Head == "" {
		m.log.Error("this machine cannot find its head; boot it again with a right command line")
		m.standStill()
	}
	for m.lease == nil {
		lease, err := network.Up(ctx, m.line.MAC, m.log)
		if err != nil {
			m.log.Error("no network", "error", err)
			m.rest()
			time.Sleep(maxDelay) // nothing tells when the kernel would answer otherwise
		}
		m.lease = lease
	}
	m.log.Info("network", "interface", m.lease.Interface, "address", m.lease.Address.String(), "from", m.lease.Server.String())
	m.lease.Resolver("/etc/resolv.conf")
	m.client = head.New(m.line.Head, m.dialer, nil)
	m.stamps = newStamps(m.log)
}

// rest loads the drivers that a boot without trouble needs not: for who has to
// look at the machine.
func (m *machine) rest() {
	if m.modules != nil {
		m.modules.Rest()
	}
}

// standStill keeps process 1 alive without anything to do but a shell on the
// console.
func (m *machine) standStill() {
	m.rest()
	for {
		m.consoleShell(context.Background())
		time.Sleep(time.Second)
	}
}

// drivers loads modules: for devices first, since the network is waited for,
// then what every boot needs. A key is made in between, while the DHCP server
// thinks.
func (m *machine) drivers(ctx context.Context) {
	cold := make(chan struct{})
	var err error
	if m.modules, err = module.Open("/", m.log); err != nil {
		m.log.Warn(err.Error())
		m.modules = nil
		close(cold)
	} else {
		go func() {
			if err := m.modules.Devices(ctx, m.cardFound, cold); err != nil {
				m.log.Warn("drivers for devices that appear later are not loaded", "error", err)
			}
		}()
	}
	go func() {
		<-cold
		key, err := identity.NewKey()
		if err != nil {
			m.log.Warn("no key for a certificate", "error", err)
		}
		m.key <- key
		if m.modules == nil {
			m.common <- nil
			return
		}
		m.common <- m.modules.Common()
	}()
}

// cardFound says whether the card that the machine booted from has its driver.
func (m *machine) cardFound() bool {
	all, err := net.Interfaces()
	return err == nil && slices.ContainsFunc(all, func(i net.Interface) bool {
		return len(m.line.MAC) > 0 && bytes.Equal(i.HardwareAddr, m.line.MAC)
	})
}

// links makes the tools of agent/shell callable by name.
func (m *machine) links() {
	os.MkdirAll("/bin", 0o755)
	for _, name := range shell.Names() {
		os.Symlink("/init", "/bin/"+name)
	}
	os.MkdirAll(root.State, 0o700)
	if err := unix.Mkfifo(shell.ResumeFile, 0o600); err != nil {
		m.log.Warn("`resume` will not work", "error", err)
		return
	}
	go m.awaitResume()
}

// awaitResume passes on what the resume tool writes.
func (m *machine) awaitResume() {
	f, err := os.OpenFile(shell.ResumeFile, os.O_RDWR, 0) // for writing too, so that it never ends
	if err != nil {
		return
	}
	buf := make([]byte, 64)
	for {
		if _, err := f.Read(buf); err != nil {
			return
		}
		select {
		case m.resume <- struct{}{}:
		default:
		}
	}
}

// reap collects orphans, as process 1 must.
func (m *machine) reap() {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	for range died {
		m.commands.Reap()
	}
}

// until tries a step until it works.
func (m *machine) until(ctx context.Context, step string, try func(context.Context) error) {
	delay := minDelay
	for {
		err := guarded(ctx, try)
		if err == nil {
			m.hold("")
			return
		}
		if f := (*failure)(nil); errors.As(err, &f) {
			m.fail(f.step, f.error)
		} else {
			m.fail(step, err)
		}
		m.pause(ctx, delay/2+rand.N(delay)) // not all machines at once when a head comes back
		delay = min(2*delay, maxDelay)
	}
}

// failure is an error of another step than the one that is tried.
type failure struct {
	step string
	error
}

func (f *failure) Unwrap() error { return f.error }

// guarded makes a panic an error.
func guarded(ctx context.Context, try func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a fault in the agent: %v, at %s", p, debug.Stack())
		}
	}()
	return try(ctx)
}

// fail tells of an error, once as long as it is the same.
func (m *machine) fail(step string, err error) {
	text := step + ": " + err.Error()
	m.mu.Lock()
	told := m.stopped == text
	m.mu.Unlock()
	if told {
		return
	}
	m.hold(text)
	m.rest()
	m.log.Error("step "+step+" failed, it will be tried again", "error", err)
	if step != wire.StepAgent { // which is the call itself
		m.stamps.put(m.client, wire.Step{Step: step, Error: err.Error()})
	}
}

// hold notes why the boot does not go on; "" when it does.
func (m *machine) hold(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = reason
}

// pause waits, or until an admin says resume.
func (m *machine) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-m.resume:
	case <-time.After(d):
	}
}

// setClock sets a clock that is off by more than the answer may have taken.
func (m *machine) setClock(now time.Time) {
	off := time.Until(now)
	if now.IsZero() || off.Abs() < 2*time.Second {
		return
	}
	ts := unix.NsecToTimespec(now.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		m.log.Warn("the clock could not be set", "error", err)
		return
	}
	m.log.Info("clock set by the head's", "it was off by", off.Round(time.Second).String())
}

// url is where the head is asked from now on.
func (m *machine) url() string {
	if m.id.Cert != nil {
		return m.line.HTTPS
	}
	return m.line.Head
}

// link starts the connection by which an admin can enter the machine, and
// after a while the reports.
func (m *machine) link(ctx context.Context) {
	ctx, m.linked = context.WithCancel(ctx)
	reporter := report.New(report.Config{Send: m.client, Version: m.version, MAC: m.line.MAC.String(), Log: m.log})
	config := link.Config{
		Head: m.url(), Dialer: m.dialer, Log: m.log, Hello: m.hello,
		Accepted: func(h wire.Hello) { reporter.Every(h.Every) },
		Serve: func(ctx context.Context, s net.Conn, h wire.Header) {
			if h.Type == wire.StreamExec && h.Exec != nil {
				m.commands.Serve(ctx, s, *h.Exec)
			}
		},
	}
	if m.id.Cert != nil {
		config.TLS = m.id.TLS()
	}
	m.linking.Go(func() { link.Run(ctx, config) })
	m.linking.Go(func() {
		select {
		case <-ctx.Done():
		case <-time.After(patience):
			m.rest() // who looks at the machine wants to see its disks
			reporter.Run(ctx)
		}
	})
}

func (m *machine) hello() wire.Hello {
	m.mu.Lock()
	defer m.mu.Unlock()
	return wire.Hello{Agent: m.version, BootID: report.BootID(), Stopped: m.stopped}
}
