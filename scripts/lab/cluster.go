package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Cluster is a head in a network, and what its machines boot.
type Cluster struct {
	*Network
	Assets *Assets
	Accel  string // what Accelerator found
	Head   *Head
	Dir    string // of its files; removed by Close

	mu       sync.Mutex
	machines []*Machine
}

// Options are what a Cluster is made from.
type Options struct {
	Program string   // bin/muster, with muster-agent beside it
	Cache   string   // directory of the assets; CacheDir when empty
	Flags   []string // added to muster serve
	Log     *slog.Logger
}

// NewCluster clears away what an interrupted run left, makes what is missing
// and starts a fresh head that knows nothing yet.
func NewCluster(ctx context.Context, opt Options) (*Cluster, error) {
	if err := Sweep(opt.Log); err != nil {
		return nil, err
	}
	program, err := filepath.Abs(opt.Program)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("build it first with make build: %w", err)
	}
	if opt.Cache == "" {
		if opt.Cache, err = CacheDir(); err != nil {
			return nil, err
		}
	}
	c := &Cluster{}
	if c.Assets, err = MakeAssets(ctx, opt.Cache, opt.Log); err != nil {
		return nil, err
	}
	if c.Accel, err = Accelerator(ctx, c.Assets, opt.Log); err != nil {
		return nil, err
	}
	if c.Network, err = NewNetwork(ctx, opt.Log); err != nil {
		return nil, err
	}
	if c.Dir, err = c.workDir(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.Head = c.NewHead(program, c.Dir, append([]string{"--boot-interface", Bridge}, opt.Flags...)...)
	if err := c.Head.Start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Cmdline is added to the kernel's command line: the console says what the
// kernel does, and it does not test whether timer interrupts come in time, which
// they may not on an emulated processor of a busy host.
const Cmdline = "console=ttyS0 no_timer_check"

// Setup is what an admin types on a new head before the first machine is
// switched on, each command run by muster.
func (c *Cluster) Setup(muster func(args ...string) error) error {
	for _, command := range [][]string{
		{"net", "create", "lab", "--first-ip", "10.77.0.100", "--ip-count", "100", "--mask-bits", "24"},
		{"image", "import", "DefaultImage", c.Assets.Image},
		{"bootconfig", "update", "DefaultBoot", "--kernel", c.Assets.Kernel, "--modules", c.Assets.Modules, "--cmdline", Cmdline},
		{"cluster", "update", "--accept-new-nodes", "true"},
	} {
		if err := muster(command...); err != nil {
			return fmt.Errorf("muster %s: %w", strings.Join(command, " "), err)
		}
	}
	return nil
}

// Machine buys a machine and plugs it in; Close takes it away.
func (c *Cluster) Machine(ctx context.Context, spec Spec) (*Machine, error) {
	m, err := c.NewMachine(ctx, c.Dir, c.Accel, spec)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.machines = append(c.machines, m)
	return m, nil
}

// Tails are the ends of the head's log and of all consoles, to see what went
// wrong.
func (c *Cluster) Tails(lines int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "== the head's log ==\n%s\n", c.Head.LogTail(lines))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.machines {
		fmt.Fprintf(&b, "== the console of %s ==\n%s\n", m.Spec.Name, m.Console.Tail(lines))
	}
	return b.String()
}

// Close ends everything and leaves nothing. Only a head that does not end
// cleanly or a namespace that cannot be removed is an error.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var failed []error
	for _, m := range c.machines {
		failed = append(failed, m.Close())
	}
	if c.Head != nil {
		failed = append(failed, c.Head.Stop())
	}
	failed = append(failed, c.Network.Close())
	if c.Dir != "" {
		failed = append(failed, os.RemoveAll(c.Dir))
	}
	return errors.Join(failed...)
}
