package app

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"muster/controller/auth"
	"muster/controller/iscsi"
	"muster/shared/object"
	"muster/shared/service"
	"muster/shared/wire"

	proto "muster/shared/iscsi"
)

// noISCSI switches the target off.
const noISCSI = "none"

// iscsiAt is where the iSCSI target listens; not valid where there is none.
func (h *Head) iscsiAt(bh bootHead) (netip.AddrPort, error) {
	switch {
	case h.cfg.ISCSI == noISCSI, h.cfg.ISCSI == "" && !bh.Addr.IsValid():
		return netip.AddrPort{}, nil
	case h.cfg.ISCSI == "":
		return netip.AddrPortFrom(bh.Addr, proto.Port), nil
	}
	at, err := netip.ParseAddrPort(h.cfg.ISCSI)
	if err != nil {
		return at, fmt.Errorf("--iscsi %q is not an address and a port such as 0.0.0.0:%d", h.cfg.ISCSI, proto.Port)
	}
	return at, nil
}

// inUse gives the files that are used though no object names them.
func (h *Head) inUse() []string {
	out := h.agent.inUse()
	if h.target != nil {
		out = append(out, h.target.InUse()...)
	}
	return out
}

func (h *Head) iscsiParts() []service.Part {
	if h.target == nil {
		return nil
	}
	return []service.Part{h.target.Part()}
}

// contentPrefix begins the target's name of one content, whatever becomes of
// the image that it is of: a node goes on reading what it booted.
const contentPrefix = "iqn.2026-01.muster:sha256:"

// target says where a node reads an image, by its SHA-256.
func (d *directory) target(digest string) (*wire.Target, error) {
	if !d.iscsi.IsValid() {
		return nil, errors.New("this head has no iSCSI target: start it with --boot-interface or --iscsi")
	}
	at := d.iscsi
	if at.Addr().IsUnspecified() && !d.boot.Addr.IsValid() {
		return nil, fmt.Errorf("nodes cannot be told where the iSCSI target is: start the head with --boot-interface, or with an address in --iscsi instead of %s", at)
	}
	if at.Addr().IsUnspecified() {
		at = netip.AddrPortFrom(d.boot.Addr, at.Port())
	}
	return &wire.Target{Address: at.String(), Name: contentPrefix + digest}, nil
}

// imageDisks are the images as disks, for nodes and the head itself.
type imageDisks struct{ *directory }

func (d imageDisks) may(from netip.Addr) bool {
	if _, ok := d.NodeByAddr(from); ok {
		return true
	}
	return auth.OwnAddress(from)
}

// Targets implements iscsi.Disks. A node is told of its own image.
func (d imageDisks) Targets(from netip.Addr) []string {
	uid, ok := d.NodeByAddr(from)
	if !ok {
		if !auth.OwnAddress(from) {
			return nil
		}
		var all []string
		for _, o := range d.reg.All(object.KindImage) {
			if i := o.(*object.Image); i.Squash() != nil {
				all = append(all, i.Target())
			}
		}
		return all
	}
	look := d.reg.Look()
	if o, ok := look.Get(object.KindNode, uid); ok {
		if bc, err := object.BootconfigOf(look, o.(*object.Node)); err == nil {
			if i, ok := look.Get(object.KindImage, bc.Image); ok && i.(*object.Image).Squash() != nil {
				return []string{i.(*object.Image).Target()}
			}
		}
	}
	return nil
}

// Open implements iscsi.Disks: by the name that the image's exports show, or
// by that of its content.
func (d imageDisks) Open(from netip.Addr, name string) (iscsi.Disk, error) {
	if !d.may(from) {
		return nil, errors.New("it is no node's address")
	}
	f, err := d.named(name)
	if err != nil {
		return nil, err
	}
	c, err := d.blobs.OpenContent(f)
	if err != nil {
		return nil, err
	}
	size, err := c.Seek(0, io.SeekEnd)
	if err == nil && f.Size >= 0 && size != f.Size {
		err = fmt.Errorf("its file has %d bytes instead of %d", size, f.Size)
	}
	if err == nil && size == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return imageDisk{c, size, f.SHA256}, nil
}

// named finds the content that a target's name means. By its digest a node may
// have any file, as over HTTP: a node that runs from an older version reads on.
func (d imageDisks) named(name string) (*object.File, error) {
	digest, byContent := strings.CutPrefix(name, contentPrefix)
	for _, o := range d.reg.All(object.KindImage) {
		i := o.(*object.Image)
		if !byContent && i.Target() == name && i.Squash() != nil {
			return i.Squash(), nil
		}
		for _, v := range i.Versions {
			if byContent && v.File.SHA256 == digest {
				return v.File, nil
			}
		}
	}
	if byContent {
		return &object.File{SHA256: digest, Size: -1}, nil
	}
	return nil, errors.New("there is no image of this name, or it has no content")
}

// imageDisk is a content as a disk. A session reads one thing after the other.
type imageDisk struct {
	io.ReadSeekCloser
	size   int64
	digest string
}

func (d imageDisk) Size() int64    { return d.size }
func (d imageDisk) Serial() string { return d.digest }

func (d imageDisk) ReadAt(b []byte, off int64) (int, error) {
	if _, err := d.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(d, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}
