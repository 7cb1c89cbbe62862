package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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
// it, beside the head's start: packing takes longer than starting may.
type agentArchive struct {
	program string // path of muster-agent
	blobs   *library.Blobs
	note    string // file that remembers which archive was made of which program
	log     *slog.Logger

	mu  sync.Mutex
	sum string
	err error
}

func newAgentArchive(program string, blobs *library.Blobs, data string, log *slog.Logger) *agentArchive {
	return &agentArchive{program: program, blobs: blobs, note: filepath.Join(data, "agent-archive"), log: log,
		err: errors.New("the head is still packing the agent; it takes a few seconds")}
}

// digest gives the archive's SHA-256, or why there is none.
func (a *agentArchive) digest() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sum, a.err
}

// inUse names the archive to the sweep of unused files.
func (a *agentArchive) inUse() []string {
	if sum, err := a.digest(); err == nil {
		return []string{sum}
	}
	return nil
}

func (a *agentArchive) set(sum string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sum, a.err = sum, err
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
	a.set(sum, nil)
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

// run packs the archive if need be, and then waits: the group's members must
// not end by themselves.
func (a *agentArchive) run(ctx context.Context) error {
	if !a.recall() {
		if err := a.pack(); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("the agent %s is missing: install it there, or name it with --agent, and restart the head", a.program)
			}
			a.set("", err)
			a.log.Error("no machine can boot: the agent could not be packed", "error", err)
		}
	}
	<-ctx.Done()
	return nil
}

func (a *agentArchive) pack() error {
	start, stamp := time.Now(), a.stamp()
	var buf bytes.Buffer
	if err := initramfs.Agent(&buf, a.program, []string{"sh"}); err != nil {
		return err
	}
	size := buf.Len()
	f, release, err := a.blobs.Add(&buf, int64(size), start, nil)
	if err != nil {
		return err
	}
	defer release()
	a.set(f.SHA256, nil)
	a.log.Info("packed the agent", "bytes", size, "took", time.Since(start).Round(time.Millisecond))
	if err := os.WriteFile(a.note, []byte(stamp+" "+f.SHA256+"\n"), 0o600); err != nil {
		a.log.Warn("the next start has to pack the agent again", "error", err)
	}
	return nil
}
