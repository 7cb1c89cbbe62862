// Package headlog keeps the head's last log lines in memory, for those who ask
// over the network what it has been doing.
//
// It stands in front of the real log handler and passes everything on. What
// looks like a secret is not kept, and neither the number of lines nor the size
// of one grows. It must not decide what is logged.
package headlog

import (
	"context"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Keep is how many lines are kept; maxText bounds one, in bytes.
const (
	Keep    = 2000
	maxText = 2 << 10
)

// Line is one line of the log.
type Line struct {
	Time  time.Time
	Level slog.Level
	Text  string // the message and its attributes, key=value
}

// Book holds the lines.
type Book struct {
	mu    sync.Mutex
	lines []Line // a ring once it is full
	next  int    // where the next line goes
	total int    // lines ever
}

// New makes an empty one.
func New() *Book { return &Book{} }

// Last gives the newest lines of at least a level, at most n, oldest first,
// and how many lines have been forgotten since the start.
func (b *Book) Last(n int, least slog.Level) (lines []Line, forgotten int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := len(b.lines); i > 0 && len(lines) < n; i-- {
		l := b.lines[(b.next+i-1)%len(b.lines)]
		if l.Level >= least {
			lines = append(lines, l)
		}
	}
	for i, j := 0, len(lines)-1; i < j; i, j = i+1, j-1 {
		lines[i], lines[j] = lines[j], lines[i]
	}
	return lines, b.total - len(b.lines)
}

func (b *Book) add(l Line) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total++
	if len(b.lines) < Keep {
		b.lines = append(b.lines, l)
		return
	}
	b.lines[b.next] = l
	b.next = (b.next + 1) % Keep
}

// Handler gives a log handler that keeps what it passes on to next.
func (b *Book) Handler(next slog.Handler) slog.Handler { return &handler{book: b, next: next} }

type handler struct {
	book  *Book
	next  slog.Handler
	attrs string // those of With, ready to be appended
	group string // prefix of keys
}

func (h *handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	var text strings.Builder
	text.WriteString(hide(r.Message))
	text.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&text, h.group, a)
		return text.Len() < maxText
	})
	h.book.add(Line{Time: r.Time, Level: r.Level, Text: clip(text.String())})
	return h.next.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var text strings.Builder
	text.WriteString(h.attrs)
	for _, a := range attrs {
		appendAttr(&text, h.group, a)
	}
	return &handler{h.book, h.next.WithAttrs(attrs), clip(text.String()), h.group}
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &handler{h.book, h.next.WithGroup(name), h.attrs, h.group + name + "."}
}

func appendAttr(text *strings.Builder, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, inner := range v.Group() {
			appendAttr(text, group, inner)
		}
		return
	}
	if a.Key == "" || text.Len() > maxText {
		return
	}
	value := hidden
	if !secretKey.MatchString(a.Key) {
		value = hide(v.String())
	}
	text.WriteString(" " + group + a.Key + "=" + value)
}

const hidden = "[hidden]"

var (
	secretKey = regexp.MustCompile(`(?i)pass|secret|token|authorization|cookie|private|credential|(^|[_-])key$|otp`)
	// Values that are secrets wherever they stand: tokens, passwords in URLs, and
	// words like "password=x" in the middle of a text.
	secretText = regexp.MustCompile(`(?i)eyJ[\w-]{6,}\.[\w-]+\.[\w-]*|bearer\s+\S+|://[^/\s:@]*:[^/\s@]*@|(?:pass(?:word|wd|phrase)?|secret|token)["']?\s*[=:]\s*\S+|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*`)
)

// hide replaces what looks like a secret.
func hide(s string) string {
	if len(s) > 2*maxText { // what is cut off need not be searched
		s = s[:2*maxText]
	}
	return secretText.ReplaceAllString(s, hidden)
}

// clip makes one short line of a text.
func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
