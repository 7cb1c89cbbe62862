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
	AttrBootStyle  = "_boot_style"  // instead of the boot configuration's style
	AttrSanboot    = "_ipxe_sanboot"
	AttrDiskRoot   = "_disk_root"  // of the style disked: the device that becomes the root
	AttrDiskCache  = "_disk_cache" // a device that keeps images between boots
	AttrDiskWipe   = "_disk_wipe"  // devices that may be erased, with commas
)

// BootconfigOf gives the boot configuration that a node's attributes name, in
// the style that they say.
func BootconfigOf(look kind.Look, n *Node) (*Bootconfig, error) {
	name := Attribute(look, n, AttrBootConfig)
	if name == "" {
		return nil, fault.New(fault.Conflict, "the node has no attribute %s, which names its boot configuration", AttrBootConfig)
	}
	o, ok := look.Find(KindBootconfig, "name", name)
	if !ok {
		o, ok = look.Get(KindBootconfig, name)
	}
	if !ok {
		return nil, fault.New(fault.Conflict, "the node's attribute %s names the boot configuration %q, which does not exist", AttrBootConfig, name)
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
