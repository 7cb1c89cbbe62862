package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/hostlist"
)

// copiesAtOnce is with how many nodes files are exchanged at the same time
// unless --fanout says otherwise: each of them is a stream through the head.
const copiesAtOnce = 64

// putFile takes a file from standard input beside its target, and gives it its
// name when all of it is there: TARGET NAME MODE SIZE. It reads all of its input
// in any case: an answer to half a request could be lost.
const putFile = `t=; trap 'cat >/dev/null; [ -z "$t" ] || rm -f "$t"' EXIT; trap 'exit 1' HUP INT TERM
d=$1; case $d in */) mkdir -p "$d" || exit;; esac
[ ! -d "$d" ] || d=${d%/}/$2
[ ! -d "$d" ] || { echo "$d is a directory"; exit 1; }
t=$(mktemp "$(dirname "$d")/.muster-cp.XXXXXX") || exit
cat >"$t" && [ "$(wc -c <"$t")" -eq "$4" ] || { echo "not all of $2 arrived"; exit 1; }
chmod "$3" "$t" && mv -f "$t" "$d"`

// getFile gives a file behind a line with its mode and size; what comes without
// that line is why it could not.
const getFile = `[ -f "$1" ] || { echo "$1 is no file there"; exit 1; }
exec 3<"$1" || exit; echo "` + fileMark + `$(stat -L -c '%a %s' "$1")"; exec cat <&3 2>/dev/null`

const fileMark = "muster-cp "

type cpFlags struct {
	selection
	manyFlags
	progress progressFlag
}

func (m *muster) cpCommand() *cobra.Command {
	var f cpFlags
	c := &cobra.Command{
		Use: "cp FILE… SET:PATH | cp SET:PATH… DIR", Short: "Copy files to and from nodes",
		Long: `Copy files to nodes, or from nodes into DIR, which gets a folder for each node:
    muster cp /etc/hosts n[0-99]:/etc/hosts
    muster cp a b -s 'a[rack] == "r1"' :/opt/site/
    muster cp n[0-99]:/var/log/boot.log logs
PATH is absolute; with a slash at its end it is a directory, which is made where
it is missing. A file appears at its target whole or not at all, with its mode.
FILE - is standard input. Directories go as archives: with tar and muster exec.

A node that fails holds up no other, and the exit status is the worst one.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return m.cp(cmd.Context(), &f, args) },
	}
	f.selection.flags(c, m)
	f.fanout = copiesAtOnce
	c.Flags().IntVar(&f.fanout, "fanout", copiesAtOnce, "with how many nodes at once")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "give up on a node after this time for each file, such as 5m")
	c.Flags().BoolVar(&f.json, "json", false, "a JSON object with node and status or error on each line")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask, however many nodes there are")
	f.progress.flags(c)
	return c
}

// remote takes SET:/path apart.
func remote(arg string) (set, path string, ok bool) {
	at := strings.Index(arg, ":/")
	if at < 0 || strings.Contains(arg[:at], "/") {
		return "", "", false
	}
	return arg[:at], arg[at+1:], true
}

// copying is what is to be done on every node.
type copying struct {
	m     *muster
	c     *client.Client
	f     *cpFlags
	files []source // to nodes
	paths []string // on the nodes: the target, or the sources
	dir   string   // for what comes from nodes
	moved atomic.Int64
	total int64
	bar   *bar
}

// source is a file that goes to nodes.
type source struct {
	path, name string
	mode       os.FileMode
	size       int64
}

func (m *muster) cp(ctx context.Context, f *cpFlags, args []string) error {
	if err := f.check(); err != nil {
		return err
	}
	k := copying{m: m, f: f}
	last := args[len(args)-1]
	rest := args[:len(args)-1]
	var sets []string
	if set, path, ok := remote(last); ok {
		sets, k.paths = []string{set}, []string{path}
		remove, err := k.take(rest, strings.HasSuffix(path, "/"))
		defer remove()
		if err != nil {
			return err
		}
	} else {
		k.dir = last
		for _, arg := range rest {
			set, path, ok := remote(arg)
			switch {
			case !ok:
				return fmt.Errorf("neither %q nor %q is on nodes: write SET:/PATH", arg, last)
			case strings.HasSuffix(path, "/"):
				return fmt.Errorf("%q is a directory: name the files", arg)
			case len(sets) > 0 && sets[0] != set:
				return errors.New("copy from one set of nodes at a time")
			}
			sets, k.paths = []string{set}, append(k.paths, path)
		}
	}
	if sets = slices.DeleteFunc(sets, func(s string) bool { return s == "" }); len(sets) > 0 && f.given() {
		return errors.New("the nodes are before the colon, or picked with -n, -s or -a, not both")
	}
	var err error
	if k.c, err = m.connect(); err != nil {
		return err
	}
	names, err := m.nodes(ctx, &f.selection, sets)
	if err != nil {
		return err
	}
	if err := m.askFirst(names, f.yes || k.dir != "", askAbove); err != nil {
		return err
	}
	return k.all(ctx, names)
}

// take looks at the files that go to nodes. remove removes what was made of
// standard input.
func (k *copying) take(files []string, directory bool) (remove func(), err error) {
	remove = func() {}
	if len(files) > 1 && !directory {
		return remove, fmt.Errorf("%d files need a directory: write its slash, as in SET:%s/", len(files), k.paths[0])
	}
	for _, path := range files {
		name := filepath.Base(path)
		if path == "-" {
			if directory {
				return remove, errors.New("standard input has no name: name the file that it becomes")
			}
			if path, err = k.m.spool(); err != nil {
				return remove, err
			}
			remove = func() { os.Remove(path) }
			name = filepath.Base(k.paths[0])
		}
		info, err := os.Stat(path)
		if err != nil {
			return remove, err
		}
		if !info.Mode().IsRegular() {
			return remove, fmt.Errorf("%s is no file; a directory goes with: tar -c %s | muster exec -n NODE -- tar -x -C DIR", path, path)
		}
		mode := info.Mode().Perm()
		if name != filepath.Base(path) {
			mode = 0o644
		}
		k.files = append(k.files, source{path, name, mode, info.Size()})
		k.total += info.Size()
	}
	return remove, nil
}

// spool keeps standard input for all nodes.
func (m *muster) spool() (path string, err error) {
	file, err := os.CreateTemp("", "muster-cp-")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(file, m.Stdin)
	if err = errors.Join(err, file.Close()); err != nil {
		os.Remove(file.Name())
	}
	return file.Name(), err
}

// all copies with every node and tells what came of it.
func (k *copying) all(ctx context.Context, names []string) (err error) {
	if k.bar, err = k.m.bar(k.f.progress, fmt.Sprintf("%d nodes", len(names))); err != nil {
		return err
	}
	k.total *= int64(len(names))
	o := newOutcome(k.m, &k.f.manyFlags, len(names))
	lines := make(chan client.Line)
	go func() {
		defer close(lines)
		each(ctx, max(k.f.fanout, 1), names, func(_ int, name string) error {
			lines <- k.node(ctx, name)
			return nil
		})
	}()
	for l := range lines {
		if problem := o.take(l); err == nil {
			err = problem
		}
	}
	k.bar.end()
	return errors.Join(err, o.end(ctx))
}

// node copies with one node, up to the first failure.
func (k *copying) node(ctx context.Context, name string) client.Line {
	status, why := 0, ""
	var err error
	for i := range max(len(k.files), len(k.paths)) {
		one, cancel := ctx, context.CancelFunc(func() {})
		if k.f.timeout > 0 {
			one, cancel = context.WithTimeout(ctx, k.f.timeout)
		}
		if k.dir == "" {
			status, why, err = k.put(one, name, k.files[i])
		} else {
			status, why, err = k.get(one, name, k.paths[i])
		}
		late := one.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case late:
			err = fmt.Errorf("not done after %v", k.f.timeout)
		case err == nil && status == 0 && why == "":
			continue
		}
		break
	}
	if err != nil {
		return client.Line{Node: name, Error: err.Error()}
	}
	return client.Line{Node: name, Status: &status, Error: why}
}

func (k *copying) put(ctx context.Context, node string, s source) (int, string, error) {
	file, err := os.Open(s.path)
	if err != nil {
		return 0, "", err
	}
	defer file.Close()
	said := &limited{most: 1 << 10}
	code, why, err := k.c.Exec(ctx, node, client.Command{
		Cmd:   []string{"/bin/sh", "-c", putFile, "muster-cp", k.paths[0], s.name, strconv.FormatUint(uint64(s.mode), 8), strconv.FormatInt(s.size, 10)},
		Stdin: func() io.Reader { file.Seek(0, io.SeekStart); return io.TeeReader(file, k) },
	}, said)
	if code != 0 && why == "" {
		why = said.text()
	}
	return code, why, err
}

// Write counts what has gone.
func (k *copying) Write(p []byte) (int, error) {
	k.bar.at(k.moved.Add(int64(len(p))), k.total)
	return len(p), nil
}

func (k *copying) get(ctx context.Context, node, path string) (int, string, error) {
	dir := filepath.Join(k.dir, node)
	if !filepath.IsLocal(node) {
		return 0, "", fmt.Errorf("%q is no name for a folder", node)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, "", err
	}
	file, err := os.CreateTemp(dir, ".muster-cp-")
	if err != nil {
		return 0, "", err
	}
	defer os.Remove(file.Name()) // where it got its name there is none of this one
	defer file.Close()
	in := &incoming{k: k, file: file}
	code, why, err := k.c.Exec(ctx, node, client.Command{Cmd: []string{"/bin/sh", "-c", getFile, "muster-cp", path}}, in)
	switch {
	case err != nil || why != "":
		return code, why, err
	case code != 0:
		return code, clipText(strings.TrimSpace(string(in.head))), nil
	case !in.begun:
		return 0, "", errors.New("the node did not send the file")
	case in.got != in.size:
		return 0, "", fmt.Errorf("%d of %d bytes came; did %s change meanwhile?", in.got, in.size, path)
	}
	if err := errors.Join(file.Chmod(in.mode), file.Close()); err != nil {
		return 0, "", err
	}
	return 0, "", os.Rename(file.Name(), filepath.Join(dir, filepath.Base(path)))
}

// incoming takes what getFile gives.
type incoming struct {
	k         *copying
	file      *os.File
	head      []byte // the first line, or why there is none
	begun     bool
	mode      os.FileMode
	got, size int64
}

func (in *incoming) Write(p []byte) (int, error) {
	whole := len(p)
	if !in.begun {
		in.head = append(in.head, p...)
		line, rest, ok := strings.Cut(string(in.head), "\n")
		if !ok || !strings.HasPrefix(line, fileMark) {
			if len(in.head) > 4<<10 {
				return 0, errors.New("the node sent something else than the file")
			}
			return whole, nil
		}
		if _, err := fmt.Sscanf(strings.TrimPrefix(line, fileMark), "%o %d", &in.mode, &in.size); err != nil {
			return 0, fmt.Errorf("the node says %q of the file", line)
		}
		in.mode &= os.ModePerm
		in.begun, in.head, p = true, nil, []byte(rest)
	}
	if in.got += int64(len(p)); in.got > in.size {
		return 0, errors.New("more bytes came than the file had")
	}
	in.k.Write(p)
	_, err := in.file.Write(p)
	return whole, err
}

// limited keeps the beginning of what is written.
type limited struct {
	most int
	b    []byte
}

func (l *limited) Write(p []byte) (int, error) {
	l.b = append(l.b, p[:min(len(p), l.most-len(l.b))]...)
	return len(p), nil
}

func (l *limited) text() string { return clipText(strings.TrimSpace(string(l.b))) }

// clipText makes one short line of what a node says.
func clipText(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\n", "; "), "\uFFFD")
	return s[:min(len(s), 400)]
}

// askFirst asks before something is done on many nodes, where there is
// somebody to ask.
func (m *muster) askFirst(names []string, yes bool, above int) error {
	if len(names) <= above || yes || !m.canAsk() {
		return nil
	}
	fmt.Fprintf(m.Stderr, "This runs on %d nodes: %s\nGo on? [y/N] ", len(names), hostlist.Fold(names))
	answer, err := firstLine(m.Stdin)
	if err != nil || !strings.EqualFold(strings.TrimSpace(answer), "y") {
		return errors.New("nothing was run")
	}
	return nil
}
