package report

import (
	"bufio"
	"bytes"
	"os"

	"golang.org/x/sys/unix"
)

// shortRead is less than a page by more than the longest line.
const shortRead = 3000

// maxProc bounds what is read of a file of the kernel.
const maxProc = 256 << 10

// procFile is a file of the kernel that is read again and again: it stays open.
type procFile struct {
	path string
	fd   int // 0 while it is not open
}

// read gives the content, in the buffer that it may have grown; nil where the
// file cannot be read.
func (p *procFile) read(buf *[]byte) []byte {
	if p.fd == 0 {
		fd, err := unix.Open(p.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil
		}
		p.fd = fd
	}
	b := (*buf)[:cap(*buf)]
	n := 0
	for {
		if n == len(b) {
			if n >= maxProc {
				return b[:n]
			}
			b = append(b, make([]byte, max(4096, len(b)))...)
			*buf = b
		}
		m, err := unix.Pread(p.fd, b[n:], int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			p.close()
			return nil
		}
		n += m
		// The kernel gives such a file page by page: what is shorter is the end.
		if m < shortRead {
			return b[:n]
		}
	}
}

func (p *procFile) close() {
	if p.fd != 0 {
		unix.Close(p.fd)
		p.fd = 0
	}
}

// digits reads the number that a text begins with, after spaces.
func digits(b []byte) (n uint64, rest []byte) {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
		n, b = n*10+uint64(b[0]-'0'), b[1:]
	}
	return n, b
}

// stamp is what changes with a file's content. A file that is not there has
// the zero one.
type stamp struct {
	modified unix.Timespec
	size     int64
}

func stampOf(path string) stamp {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return stamp{}
	}
	return stamp{st.Mtim, st.Size}
}

// firstLine is that of a small file of the kernel, without the spaces around;
// "" where it cannot be read.
func firstLine(file string) string {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var text [512]byte
	n, err := unix.Read(fd, text[:])
	if err != nil {
		return ""
	}
	line, _, _ := bytes.Cut(text[:n], []byte{'\n'})
	return string(bytes.TrimSpace(line))
}

// eachLine calls fn for the lines of a file until it says false. A file that
// is not there has none.
func eachLine(file string, fn func(string) bool) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if !fn(s.Text()) {
			return
		}
	}
}
