package cli

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// How often progress is shown: on a terminal, and as lines elsewhere.
const (
	barEvery  = 100 * time.Millisecond
	lineEvery = 2 * time.Second
)

// progressFlag says whether progress is shown.
type progressFlag string

func (p *progressFlag) flags(c *cobra.Command) {
	*p = "auto"
	c.Flags().StringVar((*string)(p), "progress", "auto", "auto (on a terminal), always or never")
	must(c.RegisterFlagCompletionFunc("progress", cobra.FixedCompletions([]string{"auto", "always", "never"}, cobra.ShellCompDirectiveNoFileComp)))
}

// bar shows on stderr how far something is. Its methods may be called from any
// goroutine; a nil bar shows nothing.
type bar struct {
	m     *muster
	what  string
	tty   bool
	began time.Time

	mu          sync.Mutex
	shown       time.Time
	done, total int64
	stale       bool // what is shown is not the last state
}

// bar begins to show progress; nil when none is wanted.
func (m *muster) bar(p progressFlag, what string) (*bar, error) {
	f, isFile := m.Stderr.(*os.File)
	tty := isFile && term.IsTerminal(int(f.Fd()))
	switch {
	case p != "auto" && p != "always" && p != "never":
		return nil, fmt.Errorf("--progress %q is none of auto, always and never", string(p))
	case p == "never" || (p == "auto" && !tty):
		return nil, nil
	}
	return &bar{m: m, what: what, tty: tty, began: time.Now()}, nil
}

// at shows that done of total bytes have gone; total is below 1 when unknown.
func (b *bar) at(done, total int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done, b.total, b.stale = done, total, true
	every := lineEvery
	if b.tty {
		every = barEvery
	}
	if now := time.Now(); now.Sub(b.shown) >= every {
		b.shown = now
		b.write()
	}
}

// end shows the last state and leaves the line.
func (b *bar) end() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stale {
		b.write()
	}
	if b.tty {
		fmt.Fprintln(b.m.Stderr)
	}
}

func (b *bar) write() {
	b.stale = false
	line := b.line(time.Since(b.began))
	if b.tty {
		fmt.Fprintf(b.m.Stderr, "\r\x1b[K%s", line)
		return
	}
	fmt.Fprintln(b.m.Stderr, line)
}

const barCells = 24

func (b *bar) line(took time.Duration) string {
	text := b.what + "  "
	if b.total > 0 {
		full := int(min(b.done, b.total) * barCells / b.total)
		if b.tty {
			text += "[" + strings.Repeat("#", full) + strings.Repeat(".", barCells-full) + "] "
		}
		text += fmt.Sprintf("%3d %%  ", min(b.done, b.total)*100/b.total)
	}
	text += bytesText(b.done)
	if s := took.Seconds(); s > 0.5 {
		text += "  " + bytesText(int64(float64(b.done)/s)) + "/s"
	}
	return text
}
