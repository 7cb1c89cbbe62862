package squashfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"
)

// maxDepth is how many directories may lie below each other.
const maxDepth = 512

// Reader gives the names of an image, and where their content is. It is not
// safe for concurrent use.
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

// Root gives the entry of the root directory.
func (r *Reader) Root() (Entry, error) {
	n, err := r.root()
	if err != nil {
		return Entry{}, err
	}
	return n.entry("."), nil
}

func (r *Reader) root() (*inode, error) {
	ref := r.im.sb.RootInode
	n, err := r.im.inodeAt(ref>>16, int(ref&0xffff), 0)
	if err == nil && n.kind != typeDir {
		err = errors.New("squashfs: the root inode is not a directory")
	}
	return n, err
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
