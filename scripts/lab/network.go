package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	namespacePrefix = "muster-lab-"
	locksDir        = "/run/muster-lab"
	netnsDir        = "/run/netns"
	// Bridge is the one switch of a lab's network; the head listens on it.
	Bridge = "br0"
)

// HeadAddress is the head's address and network in every lab.
var HeadAddress = netip.MustParsePrefix("10.77.0.1/24")

// Network is a network namespace with a bridge. Everything in the lab runs
// inside it, so the host's own network sees nothing of it.
type Network struct {
	Name string // of the namespace, for ip netns exec

	log  *slog.Logger
	lock *os.File // held as long as the owner lives; tells Sweep
	taps atomic.Int32
	bmcs atomic.Int32
}

var networks atomic.Int32

// NewNetwork makes a namespace named after this process. It needs root.
func NewNetwork(ctx context.Context, log *slog.Logger) (*Network, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab needs root, for its network namespace")
	}
	name := fmt.Sprintf("%s%d-%d", namespacePrefix, os.Getpid(), networks.Add(1))
	lock, err := holdLock(name)
	if err != nil {
		return nil, err
	}
	n := &Network{Name: name, log: log, lock: lock}
	for _, args := range []string{
		"netns add " + name,
		// Nobody else is here: no need to wait for objections to an IPv6 address.
		"netns exec " + name + " sysctl -q -w net.ipv6.conf.default.accept_dad=0",
		"-n " + name + " link set lo up",
		// A plain switch: it neither delays a port nor filters multicast.
		"-n " + name + " link add " + Bridge + " type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
		// The uplink gives the bridge a carrier, as a switch does, whether or not a machine is on.
		"-n " + name + " link add uplink type veth peer name switch",
		"-n " + name + " link set switch addrgenmode none up",
		"-n " + name + " link set uplink master " + Bridge + " up",
		"-n " + name + " address add " + HeadAddress.String() + " dev " + Bridge,
		"-n " + name + " link set " + Bridge + " up",
	} {
		if err := run(ctx, "ip", strings.Fields(args)...); err != nil {
			return nil, errors.Join(fmt.Errorf("making the lab's network: %w", err), n.Close())
		}
	}
	if err := n.waitCarrier(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("making the lab's network: %w", err), n.Close())
	}
	return n, nil
}

// waitCarrier waits until the bridge works, which is when it has its IPv6
// address, a moment after it was set up.
func (n *Network) waitCarrier(ctx context.Context) error {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return nil // a host without IPv6
	}
	for range 250 {
		out, err := output(ctx, exec.Command("ip", "-n", n.Name, "-6", "address", "show", "dev", Bridge, "scope", "link"))
		if err != nil || out != "" {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("the bridge got no carrier within 5 s")
}

// holdLock takes the lock that says that a namespace has a living owner. The
// kernel releases it when the owner dies, however it dies.
func holdLock(name string) (*os.File, error) {
	if err := os.MkdirAll(locksDir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(locksDir, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s belongs to a living process: %w", name, err)
	}
	return f, nil
}

// Command is a command that runs inside the network. The process is the
// command itself: ip replaces itself by it.
func (n *Network) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
}

// Tap plugs a new cable into the bridge and returns its interface.
func (n *Network) Tap(ctx context.Context) (string, error) {
	name := "tap" + strconv.Itoa(int(n.taps.Add(1)))
	for _, args := range []string{
		"-n " + n.Name + " tuntap add dev " + name + " mode tap",
		"-n " + n.Name + " link set " + name + " master " + Bridge + " up",
	} {
		if err := run(ctx, "ip", strings.Fields(args)...); err != nil {
			return "", fmt.Errorf("plugging in a machine: %w", err)
		}
	}
	return name, nil
}

// DialContext connects from inside the network. The address must be numeric:
// resolving a name would leave the thread that is inside.
func (n *Network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := n.Inside(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// listen listens on TCP inside the network.
func (n *Network) listen(addr netip.Addr, port uint16) (l net.Listener, err error) {
	err = n.Inside(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, port).String())
		return err
	})
	return l, err
}

// Inside calls f on a thread that is in the network's namespace; sockets that
// f itself opens belong to it for good. Goroutines that f starts do not.
func (n *Network) Inside(f func() error) error {
	inside, err := os.Open(filepath.Join(netnsDir, n.Name))
	if err != nil {
		return err
	}
	defer inside.Close()
	runtime.LockOSThread()
	outside, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer outside.Close()
	if err := unix.Setns(int(inside.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("entering %s: %w", n.Name, err)
	}
	result := f()
	if err := unix.Setns(int(outside.Fd()), unix.CLONE_NEWNET); err != nil {
		return errors.Join(result, fmt.Errorf("leaving %s: %w", n.Name, err)) // the thread stays locked and dies with its goroutine
	}
	runtime.UnlockOSThread()
	return result
}

// HTTPClient speaks to servers inside the network.
func (n *Network) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:         n.DialContext,
		MaxIdleConnsPerHost: 256,
	}}
}

// Close ends what still runs in the network and removes it. It may be called
// on one that is only half made, and more than once.
func (n *Network) Close() error {
	if n.lock == nil {
		return nil
	}
	err := removeNamespace(n.Name)
	err = errors.Join(err, os.Remove(n.lock.Name()), n.lock.Close())
	n.lock = nil
	return err
}

// removeNamespace takes no context: it must also work after an interruption.
func removeNamespace(name string) error {
	if _, err := os.Stat(filepath.Join(netnsDir, name)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := killInside(ctx, name); err != nil {
		return err
	}
	return run(ctx, "ip", "netns", "delete", name)
}

// killInside kills the processes in a namespace of ours, until there are none.
func killInside(ctx context.Context, name string) error {
	for {
		out, err := output(ctx, exec.Command("ip", "netns", "pids", name))
		if err != nil {
			return err
		}
		alive := 0
		for _, field := range strings.Fields(out) {
			// Our own process is there while one of our threads dials inside.
			if pid, err := strconv.Atoi(field); err == nil && pid != os.Getpid() {
				alive++
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended since
			}
		}
		if alive == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %s in %s do not end", strings.Join(strings.Fields(out), " "), name)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
