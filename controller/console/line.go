package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"time"

	"muster/shared/object"
)

// How long a line that broke off waits until it is opened again: from the
// first to the last, doubled each time unless it stood for a while. openTime
// bounds the opening.
const (
	firstPause = time.Second
	lastPause  = 5 * time.Minute
	steady     = 30 * time.Second
	openTime   = 40 * time.Second
)

// maxRecent is how much of what was shown is kept for who comes to watch, in
// bytes: the last screen, however often it was painted.
const maxRecent = 32 << 10

// line is one node's console.
type line struct {
	c    *Console
	uid  string
	ctx  context.Context
	stop context.CancelFunc
	done chan struct{}
	kick chan struct{} // look where the console is, and at once
	hung chan struct{} // holds a token while a death is looked into

	mu       sync.Mutex
	node     *object.Node
	target   Target
	conn     io.ReadWriteCloser // nil while the line is down
	reason   string             // why it is
	ended    string             // why there will be none any more
	parser   parser
	began    time.Time // of the present line of text
	log      rotating
	logError string
	recent   []byte
	watchers map[*watcher]bool
	writer   *watcher
}

func (c *Console) newLine(uid, name string) *line {
	l := &line{
		c: c, uid: uid, node: &object.Node{Name: name}, done: make(chan struct{}), kick: make(chan struct{}, 1), hung: make(chan struct{}, 1),
		reason: "it is being opened", watchers: map[*watcher]bool{},
		log: rotating{dir: c.dir(uid), size: c.opt.Size, files: c.opt.Files},
	}
	l.parser = parser{live: l.show, line: l.record}
	return l
}

func (l *line) start(ctx context.Context) {
	l.ctx, l.stop = context.WithCancel(ctx)
	go l.run()
}

// close ends the line; who watches is told why.
func (l *line) close(why string) {
	l.stop()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log.close()
	l.ended = why
	l.tellAll()
}

// look notes that the node was changed: its console may be somewhere else.
func (l *line) look(n *object.Node) {
	t, _, err := l.c.opt.Target(n)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil && (err != nil || !reflect.DeepEqual(t, l.target)) {
		go l.conn.Close() // which ends the session
	}
	if l.conn == nil && !reflect.DeepEqual(t, l.target) {
		l.again()
	}
}

// again has the line be opened now.
func (l *line) again() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// run keeps the line open.
func (l *line) run() {
	defer close(l.done)
	pause := firstPause
	for l.ctx.Err() == nil {
		began := time.Now()
		err := l.session()
		if l.ctx.Err() != nil {
			break
		}
		if time.Since(began) > steady {
			pause = firstPause
		}
		l.down(err)
		select {
		case <-l.ctx.Done():
		case <-l.kick:
			pause = firstPause
		case <-time.After(pause/2 + rand.N(pause)):
			pause = min(2*pause, lastPause)
		}
	}
	l.down(errors.New("it was closed"))
}

// session opens the line and reads it until it breaks off.
func (l *line) session() error {
	o, err := l.c.opt.Objects.Find(object.KindNode, l.uid)
	if err != nil {
		return err
	}
	n := o.(*object.Node)
	t, ok, err := l.c.opt.Target(n)
	l.mu.Lock()
	l.node, l.target = n, t
	l.mu.Unlock()
	if err != nil {
		return err
	}
	if !ok {
		return errEnded
	}
	conn, err := l.open(t)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(l.ctx, func() { conn.Close() })
	defer stop()
	l.mu.Lock()
	l.conn, l.reason = conn, ""
	l.tellAll()
	l.mu.Unlock()
	l.c.opt.Log.Debug("console open", "node", n.Name)
	buf := make([]byte, 4096)
	for {
		k, err := conn.Read(buf)
		l.take(buf[:k])
		if errors.Is(err, io.EOF) {
			return errEnded
		}
		if err != nil {
			return err
		}
	}
}

// open waits for its turn and opens the target.
func (l *line) open(t Target) (io.ReadWriteCloser, error) {
	source, ok := l.c.opt.Sources[t.Scheme]
	if !ok {
		return nil, fmt.Errorf("there is no console by %s://", t.Scheme)
	}
	select {
	case l.c.slots <- struct{}{}:
		defer func() { <-l.c.slots }()
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	}
	ctx, cancel := context.WithTimeout(l.ctx, openTime)
	defer cancel()
	conn, err := source(ctx, t)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("it did not answer in time")
	}
	return conn, err
}

// down notes that the line broke off.
func (l *line) down(err error) {
	reason := hide(plainText(err.Error()), l.target)
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.reason
	l.conn, l.reason = nil, reason
	if was != reason {
		l.c.opt.Log.Info("console is down", "node", l.node.Name, "reason", reason)
		l.tellAll()
	}
}

// hide takes a password out of a text that may have come from anywhere.
func hide(text string, t Target) string {
	if t.Password == "" {
		return text
	}
	return strings.ReplaceAll(text, t.Password, "***")
}

// take takes what the machine said.
func (l *line) take(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.began.IsZero() {
		l.began = l.c.opt.Now()
	}
	l.parser.feed(p)
}

// show gives the watchers what a terminal may show. l.mu is held.
func (l *line) show(p []byte) {
	if l.recent = append(l.recent, p...); len(l.recent) > 2*maxRecent {
		l.recent = append(l.recent[:0], l.recent[len(l.recent)-maxRecent:]...)
	}
	for w := range l.watchers {
		w.put(p)
	}
}

// record logs a line of text, and sees whether it is a machine's last. l.mu is
// held.
func (l *line) record(text string) {
	now := l.c.opt.Now()
	at := l.began
	if at.IsZero() {
		at = now
	}
	l.began = now
	err := l.log.write([]byte(stamped(at, text) + "\n"))
	if said := fmt.Sprint(err); err != nil && said != l.logError {
		l.logError = said
		l.c.opt.Log.Error("a console cannot be logged", "node", l.node.Name, "error", err)
	}
	if err == nil {
		l.logError = ""
	}
	if !died(text) {
		return
	}
	select {
	case l.hung <- struct{}{}: // the first line is the reason; more follow at once
		go func() {
			defer func() { <-l.hung }()
			l.c.opt.Died(l.ctx, l.uid, text)
		}()
	default:
	}
}

func stamped(at time.Time, text string) string {
	return at.UTC().Format("2006-01-02T15:04:05Z") + " " + text
}

// history gives the log's files, and the line that is not whole.
func (l *line) history() (logFiles, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := ""
	if len(l.parser.text) > 0 {
		rest = stamped(l.began, string(l.parser.text)) + "\n"
	}
	return openLog(l.log.dir), rest
}

// join adds a watcher, who gets the last screen first.
func (l *line) join(w *watcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	recent := l.recent
	if len(recent) > maxRecent {
		recent = recent[len(recent)-maxRecent:]
	}
	if len(recent) > 0 {
		w.put(whole(recent))
	}
	l.watchers[w] = true
	if l.conn == nil {
		l.again()
	}
	l.tell(w)
}

// whole drops the part of a line, and of a sequence in it, at the beginning.
func whole(p []byte) []byte {
	if len(p) < maxRecent {
		return p
	}
	for i, c := range p {
		if c == '\n' {
			return p[i+1:]
		}
	}
	return p
}

func (l *line) leave(w *watcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.watchers, w)
	if l.writer == w {
		l.writer = nil
		l.tellAll()
	}
}

// write makes w the one who types, if nobody else does or force is given.
func (l *line) write(w *watcher, force bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watchers[w] && (l.writer == nil || force) {
		l.writer = w
	}
	l.tellAll()
}

// unwrite makes w only watch.
func (l *line) unwrite(w *watcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writer == w {
		l.writer = nil
	}
	l.tellAll()
}

// input types what the writer typed; from others, and while the line is down,
// it is dropped.
func (l *line) input(w *watcher, p []byte) error {
	l.mu.Lock()
	conn := l.conn
	may := l.writer == w
	l.mu.Unlock()
	if conn == nil || !may {
		return nil
	}
	_, err := conn.Write(p)
	return err
}

// tellAll tells the watchers how it stands. l.mu is held.
func (l *line) tellAll() {
	for w := range l.watchers {
		l.tell(w)
	}
}

func (l *line) tell(w *watcher) {
	if l.ended != "" { // nothing that comes later may hide it
		w.stand(standing{Mode: modeRead, Reason: l.ended, Ended: true})
		return
	}
	s := standing{Mode: modeRead, Connected: l.conn != nil, Reason: l.reason}
	if l.writer != nil {
		s.Writer = l.writer.by.Name
	}
	if l.writer == w {
		s.Mode = modeWrite
	}
	w.stand(s)
}

// plainText makes a text that came from somewhere one line without controls.
func plainText(s string) string {
	var out []string
	p := parser{live: func([]byte) {}, line: func(t string) { out = append(out, strings.TrimSpace(t)) }}
	p.feed([]byte(s))
	p.end()
	return strings.TrimSpace(strings.Join(out, " "))
}
