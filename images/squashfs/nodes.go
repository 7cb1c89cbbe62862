package squashfs

import (
	"errors"
	"fmt"
	"path"
)

// Node is everything that an image says of one name.
type Node struct {
	Path   string // from the root, without a leading slash; "." is the root
	Kind   Kind
	Mode   uint32 // permissions with setuid, setgid and sticky
	UID    uint32
	GID    uint32
	MTime  int64  // seconds since 1970
	Inode  uint64 // the same for all names of one file
	Links  uint32 // names that it should have
	Rdev   uint32 // of a device, as the kernel's new_encode_dev
	Target string // of a symbolic link
	Size   int64  // of a regular file, in bytes
	Xattrs []Xattr
	Blocks []Block // of a regular file: its content, in order
}

// Kind is the type of a file.
type Kind int

// The kinds, numbered as in the format.
const (
	Dir Kind = typeDir + iota
	File
	Symlink
	BlockDevice
	CharDevice
	Fifo
	Socket
)

// Block is a stretch of a file's content.
type Block struct {
	Pos    int64  // where it is stored; unused for a hole
	Stored uint32 // bytes there; 0 makes it a hole
	Packed bool   // whether these are compressed
	Skip   uint32 // bytes of what is unpacked that belong to others, before its own
	Size   uint32 // bytes of content
}

// Bounds on what is held in memory: a file of 128 GiB in usual blocks, and as
// many fragments as 512 GiB have.
const (
	maxFileBlocks = 1 << 20
	maxFragments  = 4 << 20
	maxXattrSets  = 4 << 20
)

// Nodes calls fn for every name, directories before what is in them and
// names in the order of their bytes. It stops at fn's first error.
func (r *Reader) Nodes(fn func(*Node) error) error {
	x := &expander{im: r.im}
	if err := x.tables(); err != nil {
		return err
	}
	ref := r.im.sb.RootInode
	left := uint64(r.im.sb.Inodes)
	return x.visit(".", ref>>16, int(ref&0xffff), &left, 0, fn)
}

// expander reads what inodes only refer to.
type expander struct {
	im        *image
	ids       []uint32
	fragments []byte // entries of 16 bytes, as the attributes
	xattrs    []byte
	values    uint64 // where the attributes begin
	valuesEnd uint64
	sets      map[uint32][]Xattr
}

func (x *expander) tables() error {
	sb := &x.im.sb
	err := x.im.pointed("owner table", sb.IDTable, sb.IDTable, uint64(sb.IDs), 4, func(b []byte) error {
		x.ids = append(x.ids, u32(b))
		return nil
	})
	if err == nil && sb.Fragments > maxFragments {
		err = fmt.Errorf("squashfs: %d fragments are too many, at most %d are read", sb.Fragments, maxFragments)
	}
	if err == nil && sb.Fragments > 0 {
		err = x.im.pointed("fragment table", sb.FragTable, sb.FragTable, uint64(sb.Fragments), 16, func(b []byte) error {
			x.fragments = append(x.fragments, b...)
			return nil
		})
	}
	if err == nil {
		err = x.xattrTable()
	}
	return err
}

// visit tells of one file, and of those below it.
func (x *expander) visit(name string, block uint64, off int, left *uint64, depth int, fn func(*Node) error) error {
	n, err := x.im.inodeAt(block, off, maxFileBlocks)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	node, err := x.node(name, n)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	node.Inode = block<<16 | uint64(off)
	if err := fn(node); err != nil || n.kind != typeDir {
		return err
	}
	if *left == 0 || depth > maxDepth {
		return fmt.Errorf("squashfs: directories are nested in a loop or too deeply at %q", name)
	}
	*left--
	return x.im.list(n, func(e dirent) error {
		return x.visit(path.Join(name, e.name), e.block, e.off, left, depth+1, fn)
	})
}

func (x *expander) node(name string, n *inode) (*Node, error) {
	if int(max(n.uid, n.gid)) >= len(x.ids) {
		return nil, errors.New("squashfs: owner outside the owner table")
	}
	out := &Node{Path: name, Kind: Kind(n.kind), Mode: uint32(n.mode) & 0o7777, UID: x.ids[n.uid], GID: x.ids[n.gid],
		MTime: int64(n.mtime), Links: n.links, Rdev: n.rdev, Target: n.target}
	var err error
	if n.xattr != noFragment {
		if out.Xattrs, err = x.set(n.xattr); err != nil {
			return nil, err
		}
	}
	if n.kind == typeFile {
		err = x.content(n, out)
	}
	return out, err
}

// content lists a file's blocks and the part of a fragment that ends it.
func (x *expander) content(n *inode, out *Node) error {
	bs := uint64(x.im.sb.BlockSize)
	if out.Size = int64(n.size); out.Size < 0 || n.size/bs > uint64(len(n.sizes)) {
		return fmt.Errorf("squashfs: a file of %s bytes is too large", grouped(n.size))
	}
	pos, left := n.start, n.size
	for _, size := range n.sizes {
		stored := size &^ uncompressed
		b := Block{Pos: int64(pos), Stored: stored, Packed: size&uncompressed == 0, Size: uint32(min(bs, left))}
		out.Blocks = append(out.Blocks, b)
		pos, left = pos+uint64(stored), left-uint64(b.Size)
	}
	if left == 0 {
		return nil
	}
	if uint64(n.fragment) >= uint64(len(x.fragments)/16) {
		return errors.New("squashfs: file ends before its size")
	}
	e := x.fragments[int(n.fragment)*16:]
	size := u32(e[8:])
	b := Block{Pos: int64(u64(e)), Stored: size &^ uncompressed, Packed: size&uncompressed == 0, Skip: n.offset, Size: uint32(left)}
	if b.Pos < 0 || b.Stored == 0 {
		return errors.New("squashfs: empty fragment")
	}
	out.Blocks = append(out.Blocks, b)
	return nil
}

// Data reads content. It is for one goroutine at a time; others may use
// others, and the Reader, meanwhile.
type Data struct {
	im    *image
	raw   []byte
	out   []byte
	frag  []byte // the last block unpacked that several files share: they come one after the other
	at    int64  // where it lies
	whole int    // bytes that the last block unpacked to
}

// Data makes a reader of content.
func (r *Reader) Data() (*Data, error) {
	im, err := newImage(r.im.r, r.im.sb)
	return &Data{im: im}, err
}

// Stored gives a block as it lies in the image, valid until the next call.
func (d *Data) Stored(b Block) ([]byte, error) {
	if uint64(b.Stored) > uint64(d.im.sb.BlockSize) || uint64(b.Pos)+uint64(b.Stored) > d.im.sb.InodeTable {
		return nil, fmt.Errorf("squashfs: data block at %s lies outside the data area", grouped(uint64(b.Pos)))
	}
	if d.raw == nil {
		d.raw = make([]byte, d.im.sb.BlockSize)
		d.out, d.frag = make([]byte, 0, d.im.sb.BlockSize), make([]byte, 0, d.im.sb.BlockSize) // their capacity is the limit
	}
	raw := d.raw[:b.Stored]
	return raw, d.im.readAt(raw, uint64(b.Pos))
}

// Content gives what a block that is no hole holds, valid until the next call.
func (d *Data) Content(b Block) ([]byte, error) {
	raw, err := d.unpacked(b)
	if err != nil {
		return nil, fmt.Errorf("squashfs: data block at %s: %w", grouped(uint64(b.Pos)), err)
	}
	d.whole = len(raw)
	end := uint64(b.Skip) + uint64(b.Size)
	if uint64(len(raw)) < end {
		return nil, fmt.Errorf("squashfs: data block at %s has %d of %d bytes", grouped(uint64(b.Pos)), len(raw), end)
	}
	return raw[b.Skip:end], nil
}

// unpacked gives the whole block. A block of many small files is kept: with
// large blocks they would each cost a million bytes of unpacking.
func (d *Data) unpacked(b Block) ([]byte, error) {
	if len(d.frag) > 0 && d.at == b.Pos {
		return d.frag, nil
	}
	raw, err := d.Stored(b)
	if err != nil || !b.Packed {
		return raw, err
	}
	if raw, err = d.im.decompress(d.out, raw); err != nil {
		return nil, err
	}
	if b.Skip > 0 || len(raw) > int(b.Size) {
		d.out, d.frag, d.at = d.frag[:0], raw, b.Pos
	}
	return raw, nil
}

// Alone says whether the block that Content was last called for holds nothing
// but its own bytes.
func (d *Data) Alone(b Block) bool { return b.Skip == 0 && d.whole == int(b.Size) }
