package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster/scripts/lab"
)

const (
	applyNodes = 500
	applyFiles = 100 // of the image
	applyRuns  = 5
	applyPeers = 8 // of the peer's copies at once
)

// measureApply changes one file of an image on simulated nodes that run, each
// with a root directory of its own, in RAM as most nodes' roots are. rsync does
// the same to as many directories, without a network or ssh in between.
func measureApply(ctx context.Context, s settings) (figures []figure, err error) {
	b, err := newBed(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	roots, err := os.MkdirTemp("/dev/shm", "muster-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(roots)) }()
	a := &applying{bed: b, roots: filepath.Join(roots, "muster"), tree: filepath.Join(b.dir, "tree")}
	agents, err := a.start(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop(agents)) }()
	peers, err := a.peerRoots(filepath.Join(roots, "rsync"))
	if err != nil {
		return nil, err
	}
	var ours []float64
	for i := range applyRuns {
		if err := a.version(ctx, strconv.Itoa(i)); err != nil {
			return nil, err
		}
		took, err := a.apply(ctx)
		if err != nil {
			return nil, err
		}
		ours = append(ours, took)
	}
	figures = append(figures, atMost(fmt.Sprintf("apply of one file to %d simulated nodes", applyNodes), 2, median(ours), "s", "of "+spread(ours)))
	theirs, err := a.rsync(ctx, peers)
	if err != nil {
		return figures, err
	}
	return append(figures, atLeast("the same by rsync, local, "+strconv.Itoa(applyPeers)+" at once / muster", 1, theirs/median(ours), "×")), b.head.Stop()
}

// applying is a head, simulated nodes with roots, and what the image is made of.
type applying struct {
	*bed
	roots, tree string
}

// start has the nodes run the first version.
func (a *applying) start(ctx context.Context, s settings) (*exec.Cmd, error) {
	l := &load{head: a.head, network: a.network, clients: s.clients}
	s.log.Info("creating nodes", "count", applyNodes)
	if err := l.createNodes(ctx, applyNodes); err != nil {
		return nil, err
	}
	if err := lab.Run(ctx, exec.Command("ip", "-n", a.network.Name, "route", "add", "local", "10.64.0.0/12", "dev", "lo")); err != nil {
		return nil, err
	}
	for i := range applyFiles {
		name := filepath.Join(a.tree, "usr", "lib", strconv.Itoa(i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(strings.Repeat(name, 20)), 0o644)); err != nil {
			return nil, err
		}
	}
	if err := a.version(ctx, "first"); err != nil {
		return nil, err
	}
	agents := a.network.Command(filepath.Join(filepath.Dir(s.program), "muster-agent"), "simulate", "--head", a.head.URL, "--first-ip", "10.64.0.1", "--count", strconv.Itoa(applyNodes), "--root", a.roots)
	if err := agents.Start(); err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"wait", "-a", "up", "--timeout", "2m"}, {"image", "apply", "bench", "-a", "-y", "--force"}} {
		s.log.Info("the nodes", "do", strings.Join(args, " "))
		if _, err := a.head.CLI(ctx, args...); err != nil {
			return nil, errors.Join(err, stop(agents))
		}
	}
	return agents, nil
}

// version gives the image another one, in which one file is another.
func (a *applying) version(ctx context.Context, text string) error {
	if err := os.MkdirAll(filepath.Join(a.tree, "etc"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(a.tree, "etc", "motd"), []byte(text+"\n"), 0o644); err != nil {
		return err
	}
	_, err := a.head.CLI(ctx, "image", "import", "bench", a.tree)
	return err
}

// apply is the command's time, and sees that every node has the file.
func (a *applying) apply(ctx context.Context) (float64, error) {
	began := time.Now()
	if _, err := a.head.CLI(ctx, "image", "apply", "bench", "-a", "-y"); err != nil {
		return 0, err
	}
	took := time.Since(began).Seconds()
	addr := netip.MustParseAddr("10.64.0.1")
	for range applyNodes {
		if err := a.has(filepath.Join(a.roots, addr.String())); err != nil {
			return 0, err
		}
		addr = addr.Next()
	}
	return took, nil
}

// has fails where a root does not have the file as it is now.
func (a *applying) has(root string) error {
	want, err := os.ReadFile(filepath.Join(a.tree, "etc", "motd"))
	if err != nil {
		return err
	}
	got, err := os.ReadFile(filepath.Join(root, "etc", "motd"))
	if err == nil && string(got) != string(want) {
		err = fmt.Errorf("%s has %q, not %q", root, got, want)
	}
	return err
}

// peerRoots makes as many directories for the peer.
func (a *applying) peerRoots(dir string) (roots []string, err error) {
	for i := range applyNodes {
		root := filepath.Join(dir, strconv.Itoa(i))
		if err := os.CopyFS(root, os.DirFS(a.tree)); err != nil {
			return nil, err
		}
		roots = append(roots, root)
	}
	return roots, nil
}

// rsync is the time that it takes for all directories.
func (a *applying) rsync(ctx context.Context, roots []string) (float64, error) {
	began := time.Now()
	slots := make(chan struct{}, applyPeers)
	failed := make([]error, len(roots))
	var all sync.WaitGroup
	for i, root := range roots {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			failed[i] = lab.Run(ctx, exec.Command("rsync", "-a", "--checksum", "--delete", a.tree+"/", root+"/"))
		})
	}
	all.Wait()
	took := time.Since(began).Seconds()
	for _, root := range roots {
		failed = append(failed, a.has(root))
	}
	return took, errors.Join(failed...)
}
