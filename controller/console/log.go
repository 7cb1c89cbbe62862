package console

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The files of a log: the newest is "log", the one before it "log.1".
const logName = "log"

// rotating is a log of bounded size on disk. Its caller serializes.
type rotating struct {
	dir   string
	size  int64 // of a file, at which the next is begun
	files int   // that are kept
	file  *os.File
	at    int64
}

func (r *rotating) write(p []byte) error {
	if r.file == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	if r.at > 0 && r.at+int64(len(p)) > r.size {
		if err := r.turn(); err != nil {
			return err
		}
	}
	n, err := r.file.Write(p)
	r.at += int64(n)
	return err
}

func (r *rotating) open() error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(r.dir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.file, r.at = f, info.Size()
	return nil
}

// turn makes each file an older one; the oldest goes.
func (r *rotating) turn() error {
	r.close()
	for i := r.files - 1; i > 0; i-- {
		err := os.Rename(r.name(i-1), r.name(i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if r.files == 1 {
		if err := os.Remove(r.name(0)); err != nil {
			return err
		}
	}
	for i := r.files; os.Remove(r.name(i)) == nil; i++ { // of a time when more were kept
	}
	return r.open()
}

func (r *rotating) name(i int) string { return logFile(r.dir, i) }

func logFile(dir string, i int) string {
	if i == 0 {
		return filepath.Join(dir, logName)
	}
	return filepath.Join(dir, fmt.Sprintf("%s.%d", logName, i))
}

func (r *rotating) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// logFiles are the open files of a log, oldest first.
type logFiles []*os.File

// openLog opens what there is.
func openLog(dir string) logFiles {
	var files logFiles
	for i := 0; ; i++ {
		f, err := os.Open(logFile(dir, i))
		if err != nil {
			return files
		}
		files = append(logFiles{f}, files...)
	}
}

func (l logFiles) close() {
	for _, f := range l {
		f.Close()
	}
}

// copy writes all of it, or the last lines, and rest, the line that is not
// whole yet.
func (l logFiles) copy(w io.Writer, lines int, rest string) error {
	if rest != "" && lines > 0 {
		lines--
		if lines == 0 {
			l = nil
		}
	}
	if lines > 0 {
		var err error
		if l, err = l.last(lines); err != nil {
			return err
		}
	}
	for _, f := range l {
		if _, err := io.Copy(w, f); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, rest)
	return err
}

// last gives the files from the one in which the last lines begin, and has
// that one stand there.
func (l logFiles) last(lines int) (logFiles, error) {
	for i := len(l) - 1; i >= 0; i-- {
		n, err := count(l[i])
		if err != nil {
			return nil, err
		}
		if n < lines && i > 0 {
			lines -= n
			continue
		}
		in := bufio.NewReader(l[i])
		at := int64(0)
		for ; n > lines; n-- {
			line, err := in.ReadSlice('\n')
			if at += int64(len(line)); err != nil {
				return nil, err
			}
		}
		_, err = l[i].Seek(at, io.SeekStart)
		return l[i:], err
	}
	return l, nil
}

// count gives the number of lines, and has the file stand at its beginning.
func count(f *os.File) (int, error) {
	n := 0
	buf := make([]byte, 64<<10)
	for {
		k, err := f.Read(buf)
		n += bytes.Count(buf[:k], []byte{'\n'})
		if err == io.EOF {
			_, err = f.Seek(0, io.SeekStart)
			return n, err
		}
		if err != nil {
			return n, err
		}
	}
}
