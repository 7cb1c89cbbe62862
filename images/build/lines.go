package build

import (
	"bytes"
	"strings"
)

// lines cuts what programs write into lines. Some draw over their line; each
// of its states is one here.
type lines struct {
	to   Watcher
	part []byte
	kept []string // the last ones
}

// Bounds of what is kept.
const (
	maxLine  = 1000 // bytes
	keptLine = 20
)

func (l *lines) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	for {
		i := bytes.IndexAny(l.part, "\r\n")
		if i < 0 && len(l.part) > maxLine {
			i = maxLine
		}
		if i < 0 {
			return len(p), nil
		}
		l.line(string(l.part[:i]))
		l.part = l.part[min(i+1, len(l.part)):]
	}
}

func (l *lines) line(text string) {
	if text = strings.TrimSpace(strings.ToValidUTF8(text, "?")); text == "" {
		return
	}
	l.kept = append(l.kept, text)
	l.kept = l.kept[max(0, len(l.kept)-keptLine):]
	l.to.Said(text)
}

func (l *lines) end() {
	l.line(string(l.part))
	l.part = nil
}
