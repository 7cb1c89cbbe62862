package boot

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// consoleLines is how many lines may wait for the console. A serial line takes
// 11 characters a millisecond at best and must not hold the boot up; when it
// is too slow, lines are dropped.
const consoleLines = 256

// Console prints log records for people: "muster   1.87 s  text (key value)".
type Console struct {
	lines chan line
}

// line is text to print, or a mark whose turn closes done.
type line struct {
	text string
	done chan<- struct{}
}

// NewConsole starts printing to w.
func NewConsole(w io.Writer) *Console {
	c := &Console{lines: make(chan line, consoleLines)}
	go func() {
		for l := range c.lines {
			if l.done != nil {
				close(l.done)
				continue
			}
			io.WriteString(w, l.text)
		}
	}()
	return c
}

// Flush waits until what was logged before is printed, at most for the given
// time.
func (c *Console) Flush(limit time.Duration) {
	done := make(chan struct{})
	timeout := time.After(limit)
	select {
	case c.lines <- line{done: done}:
	case <-timeout:
		return
	}
	select {
	case <-done:
	case <-timeout:
	}
}

// Enabled, Handle, WithAttrs and WithGroup make it a slog.Handler.
func (c *Console) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (c *Console) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	mark := ""
	if r.Level >= slog.LevelWarn {
		mark = "! "
	}
	fmt.Fprintf(&b, "muster %6.2f s  %s%s", uptime().Seconds(), mark, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, a)
		return true
	})
	b.WriteString("\r\n")
	select {
	case c.lines <- line{text: b.String()}:
	default:
	}
	return nil
}

func (c *Console) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		writeAttr(&b, a)
	}
	return &derived{Console: c, attrs: b.String()}
}

func (c *Console) WithGroup(string) slog.Handler { return c }

// derived is the same console with attributes of its own.
type derived struct {
	*Console
	attrs string
}

func (d *derived) Handle(ctx context.Context, r slog.Record) error {
	r.Message += d.attrs
	return d.Console.Handle(ctx, r)
}

func writeAttr(b *strings.Builder, a slog.Attr) {
	if v := a.Value.String(); v != "" {
		fmt.Fprintf(b, ", %s %s", a.Key, strings.ReplaceAll(v, "\n", " | "))
	}
}

// uptime is the time since the kernel started.
func uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
