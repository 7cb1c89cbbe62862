package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"muster/agent/peer"
	"muster/agent/pull"
	"muster/agent/root"
	"muster/shared/wire"
)

// progressEvery is how often the console tells how far a pull has come.
const progressEvery = 3 * time.Second

// writeFiles makes a root in RAM of the image's files, which go where they
// belong as they come. done is false where the image has to be fetched as one
// file: it has no chunks, or something was wrong with them.
func (m *machine) writeFiles(ctx context.Context, plan wire.Boot) (done bool, err error) {
	image := *plan.Image
	if root.Of(plan) != root.StyleRWRAM || image.Tree == "" {
		return false, nil
	}
	m.endStream()
	if err := root.Initramfs.Empty(); err != nil {
		return false, &failure{wire.StepRoot, err}
	}
	began := time.Now()
	err = m.inChunks(ctx, image, func(p *pull.Image) error {
		p.Room = memory()
		return p.Tree(ctx, image, root.Initramfs.New)
	})
	if err == nil {
		m.log.Info("the image's files are there and verified", "took", time.Since(began).Round(time.Millisecond).String())
		m.hasImage(image, fmt.Sprintf("%s, version %d", image.Name, image.Version))
		return true, nil
	}
	root.Initramfs.Drop()
	var large *pull.TooLarge
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case errors.As(err, &large), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.ENOMEM):
		return false, &failure{wire.StepRoot, fmt.Errorf("the image does not fit into the RAM of this machine; boot style roram needs less: %w", err)}
	}
	m.log.Warn("the image is fetched as one file", "error", err)
	return false, nil
}

// memory is what the machine has, in bytes; 0 where that is not known.
func memory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// fetch pulls the image as one file: in chunks if it can, else as it is.
func (m *machine) fetch(ctx context.Context, image wire.Image, to *os.File) error {
	m.log.Info("image", "name", image.Name, "bytes", image.Size)
	began := time.Now()
	if image.Index != "" {
		err := m.inChunks(ctx, image, func(p *pull.Image) error { return p.File(ctx, image, to) })
		switch {
		case err == nil:
			m.log.Info("image is there and verified", "took", time.Since(began).Round(time.Millisecond).String())
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		m.log.Warn("the image is fetched as it is", "error", err)
		if err := to.Truncate(0); err != nil {
			return err
		}
	}
	if err := m.pullSource().File(ctx, image, to); err != nil {
		return err
	}
	m.hold("")
	m.log.Info("image is there and verified", "took", time.Since(began).Round(time.Millisecond).String())
	return nil
}

// pullSource is the head as who gives an image, over plain HTTP: digests make
// that safe.
func (m *machine) pullSource() *pull.Source {
	var mu sync.Mutex // chunks come by several ways at once
	told := time.Now()
	source := pull.New(m.line.Head, m.dialer)
	source.Trouble = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		m.fail(wire.StepImage, err)
	}
	source.Progress = func(done int64) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(told) > progressEvery {
			told = time.Now()
			m.log.Info(fmt.Sprintf("image: %d MiB", done>>20))
		}
	}
	return source
}

// inChunks has an image pulled from other nodes and the head. Others are given
// what came, for as long as that takes; then the agent in the image goes on.
func (m *machine) inChunks(ctx context.Context, image wire.Image, use func(*pull.Image) error) error {
	if got := wire.VersionDigest(image.Tree, image.Index); image.Digest != got {
		return fmt.Errorf("the head names the version %s, and its indices are of %s", image.Digest, got)
	}
	p := &pull.Image{Source: m.pullSource()}
	pulling := p.Expect()
	defer pulling()
	fellows, err := peer.Join(ctx, m.client, p, m.dialer, m.log)
	if err != nil {
		m.log.Warn("the head gives everything, other nodes are not asked", "error", err)
		return use(p)
	}
	defer fellows.Leave(ctx, 0)
	p.Peers = peer.NewSwarm(fellows.Group, p.Source, m.dialer)
	err = use(p)
	s := p.Stats()
	m.log.Info("image", "bytes from the head", s.Head+s.Index, "from other nodes", s.Peers)
	if err == nil {
		m.hold("")
	}
	return err
}
