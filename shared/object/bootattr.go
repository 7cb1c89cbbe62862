package object

import (
	"slices"
	"strings"

	"muster/shared/fault"
	"muster/shared/kind"
)

// The reserved attributes that say how a node boots what its boot
// configuration names.
const (
	AttrBootConfig = "_boot_config" // which boot configuration
	AttrBootOnce   = "_boot_once"   // of a node alone: which one its next boot takes, with Rescue before it or not
	AttrBootStyle  = "_boot_style"  // instead of the boot configuration's style
	AttrSanboot    = "_ipxe_sanboot"
	AttrDiskRoot   = "_disk_root"     // of the style disked: the device that becomes the root
	AttrDiskCache  = "_disk_cache"    // a device that keeps images between boots
	AttrDiskWipe   = "_disk_wipe"     // devices that may be erased, with commas
	AttrPeers      = "_peers"         // what the node gives to others of images: "off", or at most so many Mbit/s
	AttrRestart    = "_apply_restart" // which services are restarted when an image that is applied changes which files
	AttrSwitch     = "_switch"        // where it is plugged in: nodes with the same value are near each other
)

// BootconfigOf gives the boot configuration that a node's attributes name, in
// the style that they say.
func BootconfigOf(look kind.Look, n *Node) (*Bootconfig, error) {
	return bootconfigBy(look, n, AttrBootConfig, Attribute(look, n, AttrBootConfig))
}

// Rescue before a boot configuration in AttrBootOnce has the machine stop in a
// shell before it fetches the image; alone it does so with the usual one.
const Rescue = "rescue:"

// BootOnce gives what a node's next boot takes, and only that; nil where it is
// as usual.
func BootOnce(look kind.Look, n *Node) (bc *Bootconfig, rescue bool, err error) {
	value, _ := n.Attributes[AttrBootOnce].(string)
	if value == "" {
		return nil, false, nil
	}
	name, rescue := strings.CutPrefix(value, Rescue)
	if name == "" {
		bc, err = BootconfigOf(look, n)
	} else {
		bc, err = bootconfigBy(look, n, AttrBootOnce, name)
	}
	if err == nil && (bc.Installs() || rescue && !bc.BootsImage()) {
		err = fault.New(fault.Conflict, "the node's attribute %s is %q, but the boot configuration %s boots no image of muster's", AttrBootOnce, value, bc.Name)
	}
	return bc, rescue, err
}

func bootconfigBy(look kind.Look, n *Node, attribute, name string) (*Bootconfig, error) {
	if name == "" {
		return nil, fault.New(fault.Conflict, "the node has no attribute %s, which names its boot configuration", attribute)
	}
	o, ok := look.Find(KindBootconfig, "name", name)
	if !ok {
		o, ok = look.Get(KindBootconfig, name)
	}
	if !ok {
		return nil, fault.New(fault.Conflict, "the node's attribute %s names the boot configuration %q, which does not exist", attribute, name)
	}
	return o.(*Bootconfig).StyledFor(look, n)
}

// StyledFor gives the boot configuration in the style that a node's attribute
// says, if it says one.
func (b *Bootconfig) StyledFor(look kind.Look, n *Node) (*Bootconfig, error) {
	style := Attribute(look, n, AttrBootStyle)
	switch {
	case style == "":
		return b, nil
	case !slices.Contains(Styles(), style):
		return nil, fault.New(fault.Conflict, "the node's attribute %s is %q; it must be one of %s", AttrBootStyle, style, strings.Join(Styles(), ", "))
	}
	out := *b
	out.BootStyle = style
	return &out, nil
}
