package console

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// read gives what a parser makes of an input, in pieces of so many bytes.
func read(input string, piece int) (live string, lines []string) {
	p := parser{live: func(b []byte) { live += string(b) }, line: func(s string) { lines = append(lines, s) }}
	for b := []byte(input); len(b) > 0; {
		n := min(piece, len(b))
		p.feed(b[:n])
		b = b[n:]
	}
	p.end()
	return live, lines
}

func TestText(t *testing.T) {
	for _, c := range []struct{ in, live, text string }{
		{"plain\r\n\r\nä€\n", "plain\r\n\r\nä€\n", "plain||ä€"},
		{"\x1b[1;31mred\x1b[0m\n", "\x1b[1;31mred\x1b[0m\n", "red"},
		{"\x1b[2J\x1b[01;01Hone\x1b[02;01Htwo\n", "\x1b[2J\x1b[01;01Hone\x1b[02;01Htwo\n", "one|two"},
		{"a\x1b]0;title\x07b\x1b]52;c;aGk=\x1b\\c\x1bPq#0\x1b\\d\n", "abcd\n", "abcd"},
		{"\x1b[6n\x1b[c\x1b[>c\x1bZ\x05\x1b[21t\x1b[?1000h\x1b[?2004h\x1b[?25l!\n", "\x1b[?25l!\n", "!"},
		{"10%\r20%\rdone\r\n", "10%\r20%\rdone\r\n", "10%|20%|done"},
		{"ab\b\bcd\n", "ab\b\bcd\n", "cd"},
		{"\x9b6n\xc2\x9b6n\xff\x00\x0e\x7f\n", "�6n6n�\n", "�6n6n�"},
		{"\x1b]never ended\nKernel panic\n", "\nKernel panic\n", "|Kernel panic"},
		{"\x1b[" + strings.Repeat("1", 99) + "mx\n", "x\n", "x"},
		{"\x1b(0q\x1b(B\x1b[4;2\x18x\n", "qx\n", "qx"},
		{"\u202eevil\n", "\u202eevil\n", "evil"},
	} {
		for _, piece := range []int{1, 3, 1000} {
			live, lines := read(c.in, piece)
			if text := strings.Join(lines, "|"); live != c.live || text != c.text {
				t.Errorf("%q by %d: shown is %q, want %q; text is %q, want %q", c.in, piece, live, c.live, text, c.text)
			}
		}
	}
	if _, lines := read(strings.Repeat("long", 1000), 100); len(lines) != 4 {
		t.Errorf("a line of 4000 bytes is logged as %d", len(lines))
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("\x1b[31mx\x1b]0;\xc2\x9b\x9b1\xe2\x82\r\n\x1b[?25h\x1b\x1b[\x1bP"))
	f.Fuzz(func(t *testing.T, b []byte) {
		live, lines := read(string(b), 7)
		if !utf8.ValidString(live) || bytes.ContainsAny([]byte(live), "\x05\x0e\x0f\x00") {
			t.Errorf("%q is shown as %q", b, live)
		}
		if again, _ := read(live, 7); again != live {
			t.Errorf("%q is shown as %q, and that as %q", b, live, again)
		}
		for _, l := range lines {
			if len(l) > maxText+utf8.UTFMax || strings.ContainsFunc(l, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
				t.Errorf("%q is logged as %q", b, l)
			}
		}
	})
}
