// Package capture makes an image of what a running node has on its root file
// system.
//
// The node's own tar reads it, run through the agent; the stream is kept on
// the head's disk until it is whole, becomes a squashfs there, and only then
// the image's content. What identifies a machine (host keys, machine id, the
// agent's identity) stays out unless it is asked for. The package must not
// decide who boots the image.
package capture

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"muster/controller/api"
	"muster/images"
	"muster/shared/fault"
	"muster/shared/filesystem"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// Nodes finds the node that an identifier names.
type Nodes interface {
	Find(kindName, id string) (kind.Object, error)
}

// Agents opens a stream to a node's agent.
type Agents interface {
	Open(ctx context.Context, uid string, h wire.Header) (net.Conn, error)
}

// Library keeps an image's content.
type Library interface {
	// Changeable says why an image may not be changed.
	Changeable(ctx context.Context, by kind.Author, image string) error
	// SetImage makes what r gives the content of an image.
	SetImage(ctx context.Context, by kind.Author, image string, r io.Reader) error
}

// Options are what a Capture has to be told.
type Options struct {
	Nodes   Nodes
	Agents  Agents
	Library Library
	Dir     string // for archives on their way; what is in it at the start is removed
	Log     *slog.Logger
	// Record notes in the audit trail what is about to be read, and by whom.
	Record func(ctx context.Context, by kind.Author, node *object.Node, detail map[string]string) error
}

// Capture serves captures.
type Capture struct {
	opt Options
	one chan struct{} // a capture at a time: each takes all cores and much of the disk
}

// New makes a Capture and clears away what an interrupted one left.
func New(opt Options) (*Capture, error) {
	if err := os.RemoveAll(opt.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return nil, err
	}
	return &Capture{opt, make(chan struct{}, 1)}, nil
}

// Routes are the endpoints.
func (c *Capture) Routes() []api.Route {
	query := []api.Param{
		{Name: "uid", Doc: "the node"}, {Name: "exclude", Doc: "paths to leave out, with commas between them"},
		{Name: "credentials", Doc: "true to take what identifies the machine too"}, {Name: "compress", Doc: "how the node compresses what it sends"},
	}
	doc := "Fill the image with what the running node has on its root file system; answers when it is done. With credentials it needs " + string(kind.NodesExecCommand) + " too."
	path := api.Root + "/image/{id}/capture"
	return []api.Route{
		{Method: "GET", Path: path, Permission: "ImagesWrite", Doc: doc, Query: query, Body: request{}, Handler: c.capture, Answer: api.Nothing{}},
		{Method: "POST", Path: path, Permission: "ImagesWrite", Doc: doc, Query: query, Body: request{}, Handler: c.capture, Answer: api.Nothing{}},
	}
}

// maxArchive is how much a node may send, in bytes.
const maxArchive = 256 << 30

func (c *Capture) capture(w http.ResponseWriter, r *http.Request) error {
	req, err := read(w, r)
	if err != nil {
		return err
	}
	// Who makes images decides what nodes run as root, so that reading their
	// files is nothing more; keys of machines and users are.
	if req.Credentials && !api.CallerOf(r.Context()).Can(kind.NodesExecCommand) {
		return fault.New(fault.Forbidden, "credentials: reading the keys of a node needs the permission %s.", kind.NodesExecCommand)
	}
	cmd, err := req.command()
	if err != nil {
		return err
	}
	image, by := r.PathValue("id"), api.By(r)
	if err := c.opt.Library.Changeable(r.Context(), by, image); err != nil {
		return err
	}
	obj, err := c.opt.Nodes.Find(object.KindNode, req.UID)
	if err != nil {
		return err
	}
	select {
	case c.one <- struct{}{}:
		defer func() { <-c.one }()
	default:
		return fault.New(fault.Conflict, "Another capture is under way; try again when it has ended.")
	}
	node := obj.(*object.Node)
	if err := c.opt.Record(r.Context(), by, node, map[string]string{"cmd": strings.Join(cmd.Argv, " "), "capture": image}); err != nil {
		return err
	}
	cmd.By = by.Name
	if err := c.run(r.Context(), by, node, cmd, image); err != nil {
		return err
	}
	return api.OK(w)
}

// run reads the node, makes the squashfs, and stores it.
func (c *Capture) run(ctx context.Context, by kind.Author, node *object.Node, cmd wire.Exec, image string) error {
	work, err := os.MkdirTemp(c.opt.Dir, "capture-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	archive := filepath.Join(work, "archive")
	if err := c.receive(ctx, node, cmd, archive); err != nil {
		return err
	}
	squash := filepath.Join(work, "image")
	info, err := images.ImportSystem(ctx, archive, squash, nil)
	if filesystem.IsFull(err) {
		return filesystem.Full(err)
	}
	if err != nil {
		return fault.New(fault.Conflict, "What node %s sent could not be made an image: %w", node.Name, errors.Unwrap(err)) // without the path of the archive
	}
	if err := os.Remove(archive); err != nil {
		return err
	}
	f, err := os.Open(squash)
	if err != nil {
		return err
	}
	defer f.Close()
	c.opt.Log.Info("captured", "node", node.Name, "image", image, "bytes", info.Size, "warnings", len(info.Warnings), "admin", by.Name)
	return c.opt.Library.SetImage(ctx, by, image, f)
}

// receive writes what the node's tar sends to a file.
func (c *Capture) receive(ctx context.Context, node *object.Node, cmd wire.Exec, path string) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	stream, err := c.opt.Agents.Open(ctx, node.UID, wire.Header{Type: wire.StreamExec, Exec: &cmd})
	if err != nil {
		return err
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	if err := wire.WriteFrame(stream, wire.FrameStdin, nil); err != nil {
		return fault.New(fault.Upstream, "The connection to node %s broke off: %w", node.Name, err)
	}
	exit, said, err := copyOutput(filesystem.Writer(out, path), stream)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, new(*fault.Error)):
		return err
	case err != nil:
		return fault.New(fault.Upstream, "The capture of node %s broke off: %w", node.Name, err)
	case exit.Error != "" || exit.Status > 1: // 1: files changed while they were read, as they do on a node that runs
		return fault.New(fault.Upstream, "On node %s tar failed with status %d: %s", node.Name, exit.Status, strings.TrimSpace(exit.Error+" "+said))
	}
	return nil
}

// maxSaid is how much of what tar complains about is kept, from the end.
const maxSaid = 2 << 10

func copyOutput(to io.Writer, stream io.Reader) (exit wire.Exit, said string, err error) {
	total := 0
	exit, err = wire.ReadOutput(stream, func(kind wire.FrameKind, p []byte) error {
		if kind == wire.FrameStderr {
			said += string(p)
			said = said[max(0, len(said)-maxSaid):]
			return nil
		}
		if total += len(p); total > maxArchive {
			return fault.New(fault.TooLarge, "The node sends more than %d bytes; exclude what does not belong into an image.", int64(maxArchive))
		}
		if _, err := to.Write(p); err != nil {
			return fault.Of(filesystem.Full(err)) // the head's mistake, not the node's
		}
		return nil
	})
	return exit, said, err
}
