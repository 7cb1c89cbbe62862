package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"muster/controller/library"
	"muster/initramfs"
)

// agentArchive is the initramfs archive around muster-agent, which every
// machine loads. It is made from the program on disk, once for each build of
// it: beside the head's start, as packing takes longer than starting may, and
// when a machine boots and another program lies there than before.
type agentArchive struct {
	program string // path of muster-agent
	blobs   *library.Blobs
	note    string // file that remembers which archive was made of which program
	log     *slog.Logger

	changed chan struct{} // the program is not the one that was looked at last

	mu     sync.Mutex
	sum    string
	err    error
	looked string // stamp of the program that sum or err is about

	first sync.Once
	ready chan struct{} // closed when a program has been looked at
}

func newAgentArchive(program string, blobs *library.Blobs, data string, log *slog.Logger) *agentArchive {
	return &agentArchive{program: program, blobs: blobs, note: filepath.Join(data, "agent-archive"), log: log,
		changed: make(chan struct{}, 1), ready: make(chan struct{}),
		err: errors.New("the head is still packing the agent; it takes a few seconds")}
}

// digest gives the archive's SHA-256, or why there is none.
func (a *agentArchive) digest() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.looked != "" && a.looked != a.stamp() {
		select {
		case a.changed <- struct{}{}:
		default:
		}
	}
	return a.sum, a.err
}

// await is digest for who can wait until the agent is packed.
func (a *agentArchive) await(ctx context.Context) (string, error) {
	select {
	case <-a.ready:
		return a.digest()
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// inUse names the archive to the sweep of unused files.
func (a *agentArchive) inUse() []string {
	if sum, err := a.digest(); err == nil {
		return []string{sum}
	}
	return nil
}

// set takes over what came of a program. Where a new one cannot be packed, the
// archive of the one before is still good.
func (a *agentArchive) set(looked, sum string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.looked = looked
	if err == nil || a.err != nil {
		a.sum, a.err = sum, err
		a.first.Do(func() { close(a.ready) })
	}
}

// recall takes the archive of an earlier start when the program is still the
// same, so that machines can boot at once.
func (a *agentArchive) recall() bool {
	note, err := os.ReadFile(a.note)
	if err != nil {
		return false
	}
	var was, sum string
	if _, err := fmt.Sscan(string(note), &was, &sum); err != nil || was != a.stamp() {
		return false
	}
	f, err := a.blobs.Open(sum)
	if err != nil {
		return false
	}
	f.Close()
	a.set(was, sum, nil)
	return true
}

// stamp tells one build of the program from another without reading it.
func (a *agentArchive) stamp() string {
	info, err := os.Stat(a.program)
	if err != nil {
		return "missing"
	}
	sum := sha256.Sum256([]byte(fmt.Sprint(a.program, info.Size(), info.ModTime().UnixNano())))
	return hex.EncodeToString(sum[:])
}

// run packs the archive whenever there is need, until ctx ends.
func (a *agentArchive) run(ctx context.Context) error {
	for {
		if !a.recall() {
			a.renew(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.changed:
		}
	}
}

func (a *agentArchive) renew(ctx context.Context) {
	stamp := a.stamp()
	err := a.pack(ctx, stamp)
	if err == nil || ctx.Err() != nil {
		return
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("the agent %s is missing: install it there, or restart the head with --agent FILE", a.program)
	}
	a.set(stamp, "", err)
	a.log.Error("the agent could not be packed for machines that boot", "error", err)
}

func (a *agentArchive) pack(ctx context.Context, stamp string) error {
	start := time.Now()
	var buf bytes.Buffer
	if err := initramfs.Agent(whileIn{ctx, &buf}, a.program, []string{"sh"}); err != nil {
		return err
	}
	size := buf.Len()
	f, release, err := a.blobs.Add(&buf, int64(size), start, nil)
	if err != nil {
		return err
	}
	defer release()
	a.set(stamp, f.SHA256, nil)
	a.log.Info("packed the agent", "bytes", size, "took", time.Since(start).Round(time.Millisecond))
	if err := os.WriteFile(a.note, []byte(stamp+" "+f.SHA256+"\n"), 0o600); err != nil {
		a.log.Warn("the next start has to pack the agent again", "error", err)
	}
	return nil
}

// whileIn takes no more once its context has ended: a head that is told to
// stop does not pack to the end.
type whileIn struct {
	ctx context.Context
	w   io.Writer
}

func (w whileIn) Write(p []byte) (int, error) {
	if err := context.Cause(w.ctx); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}
