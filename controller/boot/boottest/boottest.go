// Package boottest is what the tests of the boot services share: a network
// namespace with a cable in it, and a directory and a journal in memory. It is
// only for tests.
package boottest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"muster/controller/boot"
	"muster/shared/wire"
)

const inside = "BOOTTEST_INSIDE"

// Inside runs the calling test again in a process with a network namespace of
// its own, and gives false in the one that did so, which then only returns.
// (Threads of one Go program cannot be trusted to stay in a namespace.)
func Inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, for a network namespace")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), inside+"="+t.Name(), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in its namespace: %v\n%s", err, out)
	}
	return false
}

// Cable is a veth pair: the head's end here, the machine's in a namespace of
// its own.
type Cable struct {
	Head, Machine string // interface names
	MAC           net.HardwareAddr
	far           netns.NsHandle
}

// Connect lays a cable. The head's end gets the address.
func Connect(t *testing.T, addr string) *Cable {
	t.Helper()
	c := &Cable{Head: "head0", Machine: "node0"}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: c.Head}, PeerName: c.Machine}))
	head, err := netlink.LinkByName(c.Head)
	must(err)
	a, err := netlink.ParseAddr(addr)
	must(err)
	must(netlink.AddrAdd(head, a))
	must(netlink.LinkSetUp(head))

	runtime.LockOSThread()
	here, err := netns.Get()
	must(err)
	c.far, err = netns.New()
	must(err)
	must(netns.Set(here))
	runtime.UnlockOSThread()
	t.Cleanup(func() { c.far.Close(); here.Close() })

	machine, err := netlink.LinkByName(c.Machine)
	must(err)
	must(netlink.LinkSetNsFd(machine, int(c.far)))
	c.Far(func() {
		machine, err := netlink.LinkByName(c.Machine)
		must(err)
		must(netlink.LinkSetUp(machine))
		c.MAC = machine.Attrs().HardwareAddr
	})
	return c
}

// Far runs f, which opens sockets, in the machine's namespace.
func (c *Cable) Far(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := netns.Set(c.far); err != nil {
			panic(err)
		}
		f()
	}()
	<-done
}

// Addr gives the machine's end an address.
func (c *Cable) Addr(t *testing.T, addr string) {
	t.Helper()
	c.Far(func() {
		a, err := netlink.ParseAddr(addr)
		if err == nil {
			var link netlink.Link
			if link, err = netlink.LinkByName(c.Machine); err == nil {
				err = netlink.AddrAdd(link, a)
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// Registry is a Directory and a Journal in memory.
type Registry struct {
	Nets   []boot.Network
	Accept atomic.Bool // Admit makes nodes

	mu       sync.Mutex
	machines map[string]boot.Machine // by UID
	open     map[netip.Addr]string
	keys     map[string]int
	stamps   []string
}

// Put adds or changes a machine.
func (r *Registry) Put(m boot.Machine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.machines == nil {
		r.machines = map[string]boot.Machine{}
	}
	r.machines[m.UID] = m
}

// ByMAC is boot.Directory's.
func (r *Registry) ByMAC(mac net.HardwareAddr) (boot.Machine, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.machines {
		if m.MAC.String() == mac.String() {
			return m, true
		}
	}
	return boot.Machine{}, false
}

// ByAddr is boot.Directory's.
func (r *Registry) ByAddr(a netip.Addr) (boot.Machine, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m, ok := r.machines[r.open[a]]; ok {
		return m, true
	}
	for _, m := range r.machines {
		if m.IP == a {
			return m, true
		}
	}
	return boot.Machine{}, false
}

// Networks is boot.Directory's.
func (r *Registry) Networks() []boot.Network { return r.Nets }

// Admit is boot.Directory's. New nodes get 10.0.1.1, 10.0.1.2, …
func (r *Registry) Admit(_ context.Context, mac net.HardwareAddr, _ string) (boot.Machine, error) {
	if !r.Accept.Load() {
		return boot.Machine{}, boot.ErrNotAccepted
	}
	if m, ok := r.ByMAC(mac); ok {
		return m, nil
	}
	r.mu.Lock()
	n := len(r.machines)
	r.mu.Unlock()
	m := boot.Machine{UID: mac.String(), Name: fmt.Sprintf("n%d", n), MAC: mac, IP: netip.AddrFrom4([4]byte{10, 0, 1, byte(n + 1)})}
	r.Put(m)
	return m, nil
}

// OpenBoot is boot.Journal's.
func (r *Registry) OpenBoot(uid string, a netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open, r.keys = map[netip.Addr]string{}, map[string]int{}
	}
	r.open[a] = uid
	r.keys[uid] = 1
}

// Opened says for which UID a boot is open at an address.
func (r *Registry) Opened(a netip.Addr) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[a]
}

// Mint is boot.Journal's.
func (r *Registry) Mint(uid string, a netip.Addr) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[a] != uid || r.keys[uid] == 0 {
		return "", false
	}
	r.keys[uid]--
	return "K3y_-" + uid, true
}

// Served is boot.Journal's: the machine boots as usual from then on.
func (r *Registry) Served(_ context.Context, uid, once string) error {
	r.Stamp(uid, wire.Step{Step: "served", Detail: once})
	return nil
}

// Stamp is boot.Journal's.
func (r *Registry) Stamp(uid string, s wire.Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stamps = append(r.stamps, fmt.Sprintf("%s %s %s%s", uid, s.Step, s.Detail, s.Error))
}

// Stamps gives all stamps so far: "UID step text".
func (r *Registry) Stamps() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.stamps...)
}
