package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"muster/controller/boot"
	"muster/images/liveiso"
	"muster/shared/kind"
	"muster/shared/object"
	"muster/shared/wire"
)

// next fills in what a machine boots now: what its attribute says for this boot
// alone, or else as usual.
func (d *directory) next(c *boot.Config, n *object.Node) error {
	look := d.reg.Look()
	bc, rescue, err := object.BootOnce(look, n)
	if err != nil {
		return err
	}
	if bc == nil {
		if bc, err = object.BootconfigOf(look, n); err != nil {
			return err
		}
		return d.config(c, n, bc)
	}
	c.Once, _ = n.Attributes[object.AttrBootOnce].(string)
	if err := d.config(c, n, bc); err != nil || !bc.BootsImage() {
		return err
	}
	// The agent asks later, when the attribute is gone.
	c.Cmdline += " " + wire.CmdlineConfig + "=" + bc.UID
	if rescue {
		c.Cmdline += " " + wire.CmdlineStop + "=" + wire.StopRescue
	}
	return nil
}

// Served implements boot.Journal: the node boots as usual from here on. What an
// admin has asked for meanwhile stays.
func (d *directory) Served(ctx context.Context, uid, once string) error {
	err := d.reg.Modify(ctx, headAuthor, object.KindNode, uid, func(_ kind.Tx, obj kind.Object) error {
		n := obj.(*object.Node)
		if n.Attributes[object.AttrBootOnce] == once {
			n.Attributes = maps.Clone(n.Attributes)
			delete(n.Attributes, object.AttrBootOnce)
		}
		return nil
	})
	if err == nil {
		d.fleet.Stamp(uid, wire.Step{Step: wire.StepFirmware, Detail: "once " + once})
	}
	return err
}

// config fills in what a machine boots by its boot configuration, as far as it
// is the firmware's to know.
func (d *directory) config(c *boot.Config, n *object.Node, bc *object.Bootconfig) (err error) {
	c.Style, c.Foreign = bc.Style(), !bc.BootsImage()
	switch c.Style {
	case object.StyleNext:
		return nil
	case object.StyleSanboot:
		if c.San, err = boot.ParseSan(object.Attribute(d.reg.Look(), n, object.AttrSanboot)); err != nil {
			return fmt.Errorf("the node's attribute %s: %w", object.AttrSanboot, err)
		}
		return nil
	}
	if problems := d.library.Problems(bc); len(problems) > 0 {
		return errors.New("boot configuration " + bc.Name + ": " + strings.Join(problems, "; "))
	}
	if c.Cmdline, err = d.provision.Cmdline(n, bc); err != nil {
		return errors.New("boot configuration " + bc.Name + ": " + err.Error())
	}
	if bc.Kernel != nil {
		c.Kernel = boot.File{Name: "vmlinuz", SHA256: bc.Kernel.SHA256}
	}
	if bc.Initramfs != nil {
		c.Initrds = append(c.Initrds, boot.File{Name: "initramfs", SHA256: bc.Initramfs.SHA256})
	}
	switch {
	case c.Style == object.StyleLive:
		return d.live(c, bc)
	case c.Foreign:
		return nil
	}
	agent, err := d.agent.digest()
	if err != nil {
		return err
	}
	// The agent's archive comes last: what it holds replaces what came before.
	c.Initrds = append(c.Initrds, boot.File{Name: "agent", SHA256: agent})
	return nil
}

// live fills in how an ISO is booted: the live system in it over the network,
// if it is one that is known or the boot configuration brings the kernel, else
// the ISO as a disc of the firmware.
func (d *directory) live(c *boot.Config, bc *object.Bootconfig) error {
	iso, live, tree := bc.Repo, (*object.Live)(nil), ""
	if o, err := d.reg.Find(object.KindRepo, bc.Repo); err == nil {
		r := o.(*object.Repo)
		if r.ISO == nil {
			return fmt.Errorf("boot configuration %s: its ISO is being changed", bc.Name)
		}
		iso = d.boot.HTTP() + wire.PathFile + r.ISO.SHA256 + "/" + url.PathEscape(r.Name+".iso")
		live, tree = r.ISO.Live, r.TreePath()
	}
	if bc.Kernel == nil && live != nil {
		c.Kernel = boot.File{Name: "vmlinuz", Path: tree + live.Kernel}
		c.Initrds = []boot.File{{Name: "initrd", Path: tree + live.Initrd}}
	}
	if c.Kernel == (boot.File{}) {
		san, err := boot.ParseSan(iso)
		if err != nil {
			return fmt.Errorf("boot configuration %s: its ISO: %w", bc.Name, err)
		}
		c.San = san
		return nil
	}
	if live == nil {
		return nil // whoever brought the kernel wrote its arguments too
	}
	words := strings.Fields(c.Cmdline)
	fill := strings.NewReplacer(liveiso.Tree, d.boot.HTTP()+tree, liveiso.ISO, iso)
	for _, arg := range live.Args {
		if key, _, _ := strings.Cut(arg, "="); !slices.ContainsFunc(words, func(w string) bool { return w == key || strings.HasPrefix(w, key+"=") }) {
			words = append(words, fill.Replace(arg))
		}
	}
	c.Cmdline = strings.Join(words, " ")
	return nil
}

// disk says which disks of a node are for its image.
func (d *directory) disk(n *object.Node) (*wire.Disk, error) {
	look := d.reg.Look()
	out := wire.Disk{Root: object.Attribute(look, n, object.AttrDiskRoot), Cache: object.Attribute(look, n, object.AttrDiskCache)}
	for w := range strings.FieldsFuncSeq(object.Attribute(look, n, object.AttrDiskWipe), func(r rune) bool { return r == ',' || r == ' ' }) {
		out.Wipe = append(out.Wipe, w)
	}
	if out.Root == "" {
		return nil, fmt.Errorf("the boot style %s needs a disk: muster node attributes %s set %s=/dev/sda2, or LABEL=x, or a whole disk", object.StyleDisked, n.Name, object.AttrDiskRoot)
	}
	return &out, nil
}
