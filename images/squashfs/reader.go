package squashfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

const (
	maxLinks = 40  // symbolic links followed for one path, as Linux does
	maxDepth = 512 // directories below each other in Walk
	// maxListing bounds one directory in Lookup, some two million names.
	maxListing = 64 << 20
)

// Reader gives names and small files of an image. It is not safe for
// concurrent use.
type Reader struct {
	im *image
}

// Entry is one file of an image.
type Entry struct {
	Path    string // from the root, without a leading slash; "." is the root
	Mode    fs.FileMode
	Size    int64 // in bytes; 0 for all but regular files
	ModTime time.Time
	Target  string // of a symbolic link
}

// Open reads the superblock of the size bytes of r. It refuses what Check
// would refuse of it, but looks at no more of the image than it is asked for.
func Open(r io.ReaderAt, size int64) (*Reader, error) {
	sb, err := readSuperblock(r, size)
	if err != nil {
		return nil, err
	}
	im, err := newImage(r, sb)
	if err != nil {
		return nil, err
	}
	return &Reader{im}, im.locate()
}

// Walk calls fn for every file, directories before what is in them. It stops
// at fn's first error; fs.SkipDir from a directory skips what is in it.
func (r *Reader) Walk(fn func(Entry) error) error {
	root, err := r.root()
	if err != nil {
		return err
	}
	// Each directory has one parent, so more visits than inodes are a loop.
	left := uint64(r.im.sb.Inodes)
	return r.walk(".", root, &left, 0, fn)
}

func (r *Reader) walk(name string, n *inode, left *uint64, depth int, fn func(Entry) error) error {
	err := fn(n.entry(name))
	if n.kind != typeDir || err != nil {
		if n.kind == typeDir && errors.Is(err, fs.SkipDir) {
			return nil
		}
		return err
	}
	if *left == 0 || depth > maxDepth {
		return fmt.Errorf("squashfs: directories are nested in a loop or too deeply at %q", name)
	}
	*left--
	return r.im.list(n, func(e dirent) error {
		child, err := r.im.inodeAt(e.block, e.off, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", path.Join(name, e.name), err)
		}
		return r.walk(path.Join(name, e.name), child, left, depth+1, fn)
	})
}

// Lookup finds a path, following symbolic links within the image, the last
// one too. A missing one gives an error that wraps fs.ErrNotExist.
func (r *Reader) Lookup(name string) (Entry, error) {
	n, err := r.find(name)
	if err != nil {
		return Entry{}, &fs.PathError{Op: "lookup", Path: name, Err: err}
	}
	return n.entry(name), nil
}

// ReadFile gives the content of a regular file of at most limit bytes.
func (r *Reader) ReadFile(name string, limit int64) ([]byte, error) {
	n, err := r.find(name)
	switch {
	case err != nil:
	case n.kind != typeFile:
		err = errors.New("not a regular file")
	case n.size > uint64(limit):
		err = fmt.Errorf("%s bytes, at most %s are read", grouped(n.size), grouped(uint64(limit)))
	default:
		var b []byte
		if b, err = r.im.content(n); err == nil {
			return b, nil
		}
	}
	return nil, &fs.PathError{Op: "read", Path: name, Err: err}
}

func (r *Reader) root() (*inode, error) {
	ref := r.im.sb.RootInode
	n, err := r.im.inodeAt(ref>>16, int(ref&0xffff), 0)
	if err == nil && n.kind != typeDir {
		err = errors.New("squashfs: the root inode is not a directory")
	}
	return n, err
}

// find resolves a path from the root, link by link.
func (r *Reader) find(name string) (*inode, error) {
	todo := strings.Split(name, "/")
	root, err := r.root()
	if err != nil {
		return nil, err
	}
	at := []*inode{root} // the way down, so that ".." can go back
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		dir := at[len(at)-1]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		n, err := r.child(dir, part)
		if err != nil {
			return nil, err
		}
		if n.kind != typeSymlink {
			at = append(at, n)
			continue
		}
		if links++; links > maxLinks {
			return nil, errors.New("too many symbolic links")
		}
		if strings.HasPrefix(n.target, "/") {
			at = at[:1]
		}
		todo = append(strings.Split(n.target, "/"), todo...)
	}
	return at[len(at)-1], nil
}

// child finds a name in a directory.
func (r *Reader) child(dir *inode, name string) (*inode, error) {
	if dir.kind != typeDir {
		return nil, errors.New("not a directory")
	}
	if dir.size > maxListing {
		return nil, errors.New("directory is too large to search")
	}
	found := errors.New("found")
	var hit dirent
	err := r.im.list(dir, func(e dirent) error {
		if e.name == name {
			hit = e
			return found
		}
		return nil
	})
	if err == nil {
		return nil, fs.ErrNotExist
	}
	if !errors.Is(err, found) {
		return nil, err
	}
	// Only ReadFile needs the sizes, and it reads small files.
	return r.im.inodeAt(hit.block, hit.off, 4096)
}

// content reads a file's blocks and the fragment that holds its end.
func (im *image) content(n *inode) ([]byte, error) {
	bs := uint64(im.sb.BlockSize)
	if n.size/bs > uint64(len(n.sizes)) {
		return nil, errors.New("too large to be read in one piece")
	}
	var out []byte
	pos := n.start
	for i, size := range n.sizes {
		want := min(bs, n.size-uint64(i)*bs)
		b, err := im.data(pos, size, want)
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
		pos += uint64(size &^ uncompressed)
	}
	if rest := n.size - uint64(len(out)); rest > 0 {
		b, err := im.fragment(n, rest)
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}

// fragment gives the last bytes of a file that shares a block with others.
func (im *image) fragment(n *inode, size uint64) ([]byte, error) {
	if n.fragment == noFragment {
		return nil, errors.New("squashfs: file ends before its size")
	}
	const perBlock = metadataSize / 16
	at, err := im.pointer("fragment table", im.sb.FragTable+uint64(n.fragment)/perBlock*8, im.sb.FragTable)
	if err != nil {
		return nil, err
	}
	b, err := im.block(at, im.sb.FragTable)
	if err != nil {
		return nil, err
	}
	off := int(n.fragment) % perBlock * 16
	if off+16 > len(b.data) {
		return nil, errors.New("squashfs: the fragment table is too short")
	}
	end := uint64(n.offset) + size
	block, err := im.data(u64(b.data[off:]), u32(b.data[off+8:]), end)
	if err != nil {
		return nil, err
	}
	return block[n.offset:end], nil
}

// data reads one data block and gives its first want bytes.
func (im *image) data(pos uint64, size uint32, want uint64) ([]byte, error) {
	stored := uint64(size &^ uncompressed)
	if stored == 0 { // a hole
		return make([]byte, want), nil
	}
	if stored > uint64(im.sb.BlockSize) || pos > im.sb.InodeTable || stored > im.sb.InodeTable-pos {
		return nil, fmt.Errorf("squashfs: data block at %s lies outside the data area", grouped(pos))
	}
	b := make([]byte, stored)
	if err := im.readAt(b, pos); err != nil {
		return nil, err
	}
	if size&uncompressed == 0 {
		var err error
		if b, err = im.decompress(make([]byte, 0, im.sb.BlockSize), b); err != nil {
			return nil, fmt.Errorf("squashfs: data block at %s: %w", grouped(pos), err)
		}
	}
	if uint64(len(b)) < want {
		return nil, fmt.Errorf("squashfs: data block at %s has %d of %d bytes", grouped(pos), len(b), want)
	}
	return b[:want], nil
}

func (n *inode) entry(name string) Entry {
	e := Entry{Path: name, Mode: n.fileMode(), ModTime: time.Unix(int64(n.mtime), 0).UTC(), Target: n.target}
	if n.kind == typeFile {
		e.Size = int64(n.size)
	}
	return e
}

// Superblock gives the image's head; its Verified is always false.
func (r *Reader) Superblock() Superblock { return r.im.sb }
