package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"muster/controller/api"
	"muster/images/tree"
	"muster/shared/fault"
	"muster/shared/object"
	"muster/shared/wire"
)

// job is one request.
type job struct {
	*Apply
	in    *request
	image wire.Image
	by    string

	out    *api.Lines
	cancel context.CancelFunc

	mu    sync.Mutex
	known map[string]*difference // by the tree that nodes run, and what else they want
}

// difference is what a node is sent, made once for all that need the same.
type difference struct {
	once          sync.Once
	before, after []byte
	err           error
}

// maxDifferences bounds those that are kept for a request: nodes may have
// changes of their own, each others.
const maxDifferences = 64

func newJob(a *Apply, in *request, image wire.Image, by string) *job {
	return &job{Apply: a, in: in, image: image, by: by, known: map[string]*difference{}}
}

// maxLine bounds a line of the answer, in bytes, so that no node can make one
// that a client does not take.
const maxLine = 512 << 10

// run does it on all nodes, and answers as they tell. A client that is gone
// ends it on every node that has not begun to change.
func (j *job) run(w http.ResponseWriter, r *http.Request, nodes []*object.Node, unknown map[string]string) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	j.out, j.cancel = api.NewLines(w), cancel
	j.begin(ctx, nodes, unknown)
	return j.out.Err()
}

func (j *job) begin(ctx context.Context, nodes []*object.Node, unknown map[string]string) {
	for name, why := range unknown {
		j.end(ctx, line{Node: name}, refused("%s", why))
	}
	slots := make(chan struct{}, j.in.Fanout)
	var running sync.WaitGroup
	defer running.Wait()
	for _, n := range nodes {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		running.Go(func() {
			defer func() { <-slots }()
			j.node(ctx, n)
		})
	}
}

// refused is an error in words for whoever asked.
func refused(format string, args ...any) error { return fault.New(fault.Conflict, format, args...) }

// end sends a node's last line.
func (j *job) end(ctx context.Context, l line, err error) {
	status := 0
	if err != nil {
		if l.Error = fault.Of(err).Reason; fault.Is(fault.Of(err), fault.Internal) {
			j.Log.Error("an image was not applied", "node", l.Node, "error", err)
		}
	}
	if l.Error != "" || len(l.Kept) > 0 {
		status = 1
	}
	l.Status = &status
	j.send(ctx, l)
}

func (j *job) send(ctx context.Context, l line) {
	l.DryRun, l.Image, l.To = j.in.DryRun, j.image.Name, j.image.Version
	raw, err := api.Line(l)
	if err == nil && len(raw) > maxLine {
		l.Files, l.Kept, l.Left, l.More = nil, l.Kept[:min(1, len(l.Kept))], nil, true
		raw, err = api.Line(l)
	}
	if err == nil && ctx.Err() == nil {
		err = j.out.Put(raw)
	}
	if err != nil { // nobody reads it: a line is made of strings and numbers
		j.cancel()
	}
}

// node does it on one node.
func (j *job) node(ctx context.Context, n *object.Node) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, time.Duration(j.in.Timeout*float64(time.Second)))
	defer cancel()
	l := line{Node: n.Name}
	boots, pinned := j.Boots(n)
	same := boots != nil && boots.Digest == j.image.Digest
	switch {
	case same:
	case boots == nil:
		l.Boots = "no image"
	case pinned != "":
		l.Boots = name(*boots) + ", by the boot configuration " + pinned + ", which pins it"
	default:
		l.Boots = name(*boots)
	}
	if err := j.Agents.Entered(n.UID); err != nil {
		if l.Off = true; same {
			j.end(ctx, l, nil)
			return
		}
		j.end(ctx, l, refused("%s Switched on it boots %s, not %s.", fault.Of(err).Reason, l.Boots, name(j.image)))
		return
	}
	err := j.talk(limited, ctx, n, &l)
	if ctx.Err() != nil {
		return
	}
	if err != nil && limited.Err() != nil {
		err = refused("it has not ended within %v s", j.in.Timeout)
	}
	l.Seconds = time.Since(began).Seconds()
	j.end(ctx, l, err)
}

// talk speaks with the agent until limited ends, and tells its plan.
func (j *job) talk(limited, ctx context.Context, n *object.Node, l *line) error {
	want := wire.Apply{Image: j.image, DryRun: j.in.DryRun, Force: j.in.Force, Restart: j.in.Restart, Rules: j.Rules(n), By: j.by}
	stream, err := j.Agents.Open(limited, n.UID, wire.Header{Type: wire.StreamApply, Apply: &want})
	if err != nil {
		return err
	}
	defer stream.Close()
	defer context.AfterFunc(limited, func() { stream.Close() })()
	var running wire.Running
	if err := wire.ReadValue(stream, &running); errors.Is(err, io.EOF) {
		return refused("its agent cannot change a running root: boot it with the agent of this head, or install that")
	} else if err != nil {
		return broke(err)
	}
	if running.Problem != "" {
		return refused("%s", running.Problem)
	}
	if err := j.bring(stream, running, l); err != nil {
		return err
	}
	for said := 0; ; said++ {
		if l.Applied = (wire.Applied{}); said > 1 {
			return broke(errors.New("its agent has no end"))
		}
		if err := wire.ReadValue(stream, &l.Applied); err != nil {
			return broke(err)
		}
		if l.Done {
			break
		}
		plan := *l
		plan.Plan = true
		j.send(ctx, plan)
	}
	if l.Error == "" && !j.in.DryRun {
		j.Runs(n.UID, j.image)
	}
	return nil
}

func broke(err error) error {
	return fault.New(fault.Upstream, "The connection to the node broke off: %v. Apply it again: what was begun is ended or taken back there.", err)
}

// bring sends what the node's version and the wanted one differ in.
func (j *job) bring(stream io.Writer, running wire.Running, l *line) error {
	if running.Image != nil {
		l.From = running.Image.Version
	}
	files, why := j.files(running.Image)
	if why != "" && !j.in.Force {
		return refused("%s: --force compares all its files with %s", why, name(j.image))
	}
	if files == nil {
		return wire.WriteValue(stream, wire.Differing{Whole: true})
	}
	d := j.between(files, running)
	if d.err != nil {
		return d.err
	}
	err := wire.WriteValue(stream, wire.Differing{Before: int64(len(d.before)), After: int64(len(d.after))})
	for _, part := range [][]byte{d.before, d.after} {
		if err == nil {
			_, err = stream.Write(part)
		}
	}
	if err != nil {
		return broke(err)
	}
	return nil
}

// files gives the files of the version that a node runs, and why they are not
// known, or are of another image.
func (j *job) files(running *wire.Image) (*tree.Manifest, string) {
	if running == nil {
		return nil, "it is not known which version of an image its files are, since the node was not booted from one"
	}
	if running.Tree == "" {
		return nil, fmt.Sprintf("its files are %s, of which the head kept no list", name(*running))
	}
	m, err := j.Images.Files(running.Tree)
	switch {
	case err != nil:
		return nil, fmt.Sprintf("its files are %s, which the head no longer keeps", name(*running))
	case running.UID != j.image.UID:
		return m, fmt.Sprintf("its files are of another image, %s", name(*running))
	}
	return m, ""
}

// between gives what two versions differ in, and the paths that the node does
// not have as its version has them.
func (j *job) between(files *tree.Manifest, running wire.Running) *difference {
	also := make([]string, 0, min(len(running.Differs), wire.MaxDiffers))
	for _, p := range running.Differs {
		if len(also) < wire.MaxDiffers {
			also = append(also, strings.TrimPrefix(p, "/"))
		}
	}
	key := running.Image.Tree + "\x00" + strings.Join(also, "\x00")
	j.mu.Lock()
	d := j.known[key]
	if d == nil {
		if len(j.known) >= maxDifferences {
			clear(j.known)
		}
		d = &difference{}
		j.known[key] = d
	}
	j.mu.Unlock()
	d.once.Do(func() {
		var now *tree.Manifest
		if now, d.err = j.Images.Files(j.image.Tree); d.err == nil {
			d.before, d.after, d.err = tree.Between(files, now, also)
		}
		if d.err == nil && max(len(d.before), len(d.after)) > wire.MaxDiffering {
			d.err = refused("%s and %s differ in more than is sent to a running node: boot it instead", name(*running.Image), name(j.image))
		}
	})
	return d
}
