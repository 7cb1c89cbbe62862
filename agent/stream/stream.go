// Package stream makes an image readable before it is there: a process of its
// own fetches it and gives the kernel a block device that waits, at each read,
// for the pieces that are read.
//
// The device is a loop device. While pieces are missing it reads from a network
// block device whose server is this process; when the image is complete its
// backing is changed to the file in RAM, in place, and the process ends. It
// outlives the switch to the new root, of which it must therefore need nothing:
// all that it uses is open, and its program is in the initramfs. Its name
// begins with "@", by which systemd knows to leave it alone to the end
// (https://systemd.io/ROOT_STORAGE_DAEMONS).
//
// With a target the image is never fetched but read from there (agent/iscsi),
// through the network block device and this process, for as long as the machine
// runs.
//
// The package must not mount anything, nor decide what is fetched.
package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"muster/agent/head"
	"muster/agent/identity"
	"muster/agent/iscsi"
	"muster/agent/peer"
	"muster/agent/pull"
	"muster/agent/root"
	"muster/shared/wire"
)

// Verb is the argument by which the agent's program becomes this process.
const Verb = "stream"

// quiet is for how long at most only what is read is fetched, so that the root
// is made sooner.
const quiet = 5 * time.Second

// Modules names the kernel modules that it needs.
func Modules() []string { return []string{"nbd", "loop"} }

// Task is what the process is told, as JSON on its standard input. It ends
// when that is closed before Detach.
type Task struct {
	Head    string // http URL, for the image
	Report  string // URL for the steps of the boot
	State   string // directory of the identity for Report; empty for none
	File    string // where the image is put; must exist and be empty
	Image   wire.Image
	Target  *wire.Target // where the image is read for good instead of being fetched
	Name    string       // of this initiator
	Version string
}

// answer is what the process says on its standard output, once.
type answer struct {
	Device string `json:",omitempty"`
	Error  string `json:",omitempty"`
}

// Main is the process.
func Main(in io.Reader, out io.Writer, log *slog.Logger) error {
	// Without it nothing of the root can be read any more.
	os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	var task Task
	messages := json.NewDecoder(in)
	if err := messages.Decode(&task); err != nil {
		return fmt.Errorf("no task: %w", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	r, err := newRun(ctx, task, log)
	if err == nil {
		defer r.close()
		err = r.start(ctx)
	}
	if err != nil {
		return errors.Join(err, json.NewEncoder(out).Encode(answer{Error: err.Error()}))
	}
	if err := json.NewEncoder(out).Encode(answer{Device: r.device.Name()}); err != nil {
		return err
	}
	detached := make(chan struct{})
	go func() {
		var detach bool
		if messages.Decode(&detach) != nil || !detach {
			cancel(errors.New("not wanted any more"))
			return
		}
		close(detached)
	}()
	select { // the making of the root has the processor and the network for itself
	case <-detached:
	case <-time.After(quiet):
	case <-ctx.Done():
	}
	return r.finish(ctx)
}

// run is one image on its way.
type run struct {
	task   Task
	log    *slog.Logger
	client *head.Client
	file   *os.File
	source *pull.Source
	pieces *pull.Pieces
	remote *iscsi.Verified // instead of file and pieces
	disk   *disk
	device *os.File // loop; or with remote the disk itself
	stuck  chan struct{}
}

func newRun(ctx context.Context, task Task, log *slog.Logger) (*run, error) {
	r := &run{task: task, log: log, stuck: make(chan struct{}, 1)}
	d := head.Dialer{Version: task.Version}
	r.client = head.New(task.Report, d, nil)
	if task.State != "" {
		id, err := identity.Load(task.State)
		if err != nil {
			return nil, err
		}
		r.client = head.New(task.Report, d, id.TLS())
	}
	source := pull.New(task.Head, d)
	r.source = source
	source.Trouble = func(err error) { r.trouble(ctx, err) }
	var err error
	if task.Target != nil {
		sums, err := source.Sums(ctx, task.Image)
		if err != nil {
			return nil, err
		}
		r.remote, err = iscsi.Verify(&iscsi.Initiator{Target: *task.Target, Name: task.Name, Dialer: d.Net(), Trouble: source.Trouble}, task.Image, sums)
		return r, err
	}
	if r.file, err = os.OpenFile(task.File, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if r.pieces, err = source.Pieces(ctx, task.Image, r.file); err != nil {
		r.file.Close()
	}
	return r, err
}

// trouble tells the head and the console why the image does not go on.
func (r *run) trouble(ctx context.Context, err error) {
	r.log.Error(err.Error())
	select {
	case r.stuck <- struct{}{}:
	default:
	}
	go r.step(ctx, wire.Step{Step: wire.StepImage, Error: err.Error()})
}

// step is told to the head, if it is there to hear it.
func (r *run) step(ctx context.Context, s wire.Step) {
	if err := r.client.Step(ctx, s); err != nil {
		r.log.Warn("the head was not told of the image", "error", err)
	}
}

// start makes the device.
func (r *run) start(ctx context.Context) error {
	size := (r.task.Image.Size + blockSize - 1) / blockSize * blockSize
	var err error
	if r.remote != nil {
		if r.disk, err = newDisk(ctx, size, r.remote, r.log); err == nil {
			r.device, err = os.Open(r.disk.path)
		}
		return err
	}
	if err := r.file.Truncate(size); err != nil {
		return fmt.Errorf("room for the image: %w", err)
	}
	if r.disk, err = newDisk(ctx, size, r, r.log); err != nil {
		return err
	}
	backing, err := os.Open(r.disk.path)
	if err != nil {
		return err
	}
	defer backing.Close()
	r.device, err = root.Attach(backing)
	return err
}

// ReadAt waits for what is read.
func (r *run) ReadAt(ctx context.Context, b []byte, off int64) error {
	if err := r.pieces.Ensure(ctx, off, int64(len(b))); err != nil {
		return err
	}
	_, err := r.file.ReadAt(b, off)
	return err
}

// finish fetches the rest and puts the file in the place of this process.
func (r *run) finish(ctx context.Context) error {
	if r.remote != nil { // as long as the machine runs
		<-ctx.Done()
		return context.Cause(ctx)
	}
	began := time.Now()
	if err := r.fill(ctx); err != nil && ctx.Err() == nil {
		r.log.Warn("the image is fetched from the head as it is", "error", err)
	}
	if err := r.pieces.Run(ctx); err != nil {
		return err
	}
	if err := root.ChangeBacking(r.device, r.file); err != nil {
		// The image is whole but must be read through this process.
		r.log.Error("the image stays with the process that fetched it", "error", err)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	took := time.Since(began).Round(time.Millisecond)
	r.log.Info("the image is there, whole and verified", "bytes", r.task.Image.Size, "took", took.String())
	select {
	case <-r.stuck: // the head was told of trouble; that is over
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		r.step(ctx, wire.Step{Step: wire.StepImage, Detail: fmt.Sprintf("%s is there after all", r.task.Image.Name)})
	default:
	}
	return nil
}

// fill fetches the image in chunks, from other nodes as far as they have it, and
// gives them what came meanwhile.
func (r *run) fill(ctx context.Context) error {
	image := r.task.Image
	if image.Index == "" {
		return nil // of an older head
	}
	if got := wire.VersionDigest(image.Tree, image.Index); image.Digest != got {
		return fmt.Errorf("the head names the version %s, and its indices are of %s", image.Digest, got)
	}
	// What stops the chunks stops no boot: the head hears only of what then
	// stops the file.
	source := *r.source
	source.Trouble = func(err error) { r.log.Warn("chunks of the image", "error", err) }
	p := &pull.Image{Source: &source}
	pulling := p.Expect()
	defer pulling()
	d := head.Dialer{Version: r.task.Version}
	fellows, err := peer.Join(ctx, r.client, p, d, r.log)
	if err != nil {
		return err
	}
	defer fellows.Leave(ctx, 0)
	p.Peers = peer.NewSwarm(fellows.Group, p.Source, d)
	err = p.Fill(ctx, image, r.pieces)
	s := p.Stats()
	r.log.Info("image", "bytes from the head", s.Head+s.Index, "from other nodes", s.Peers)
	return err
}

func (r *run) close() {
	if r.device != nil {
		r.device.Close() // whoever mounted it has it; else it is freed
	}
	if r.disk != nil {
		r.disk.close()
	}
	if r.file != nil {
		r.file.Close()
	}
}
