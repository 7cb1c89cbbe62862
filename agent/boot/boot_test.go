package boot

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/agent/head"
	"muster/agent/headtest"
	"muster/shared/wire"
)

const hash = "d08b1a41bb6b0c5a4a0b9d8a9f7a21c0a1f0d3b4c5d6e7f8091a2b3c4d5e6f70"

func TestParseLine(t *testing.T) {
	l, err := ParseLine(`BOOT_IMAGE=x console=ttyS0 quiet muster.head=http://10.1.0.1:8080 muster.https=https://10.1.0.1:8443 ` +
		`muster.ca=` + strings.ToUpper(hash) + ` muster.key=abc muster.mac=52:54:00:AA:00:01 muster.stop=root other="a b muster.key=no"` + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if l.Head != "http://10.1.0.1:8080" || l.HTTPS != "https://10.1.0.1:8443" || l.CA != hash || l.Key != "abc" || l.MAC.String() != "52:54:00:aa:00:01" || l.Stop != "root" {
		t.Errorf("got %+v", l)
	}
	for text, want := range map[string]string{
		"":                                    "muster.head is missing",
		"muster.head=10.1.0.1":                "http URL",
		"muster.head=http://h muster.ca=12":   "SHA-256",
		"muster.head=http://h muster.mac=1:2": "MAC",
		"muster.head=http://h muster.https=http://h": "https URL",
		"muster.head=http://h muster.stop=dhcp":      "image, root or rescue",
	} {
		if _, err := ParseLine(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want something about %q", text, err, want)
		}
	}
	// What is right counts, whatever else is wrong.
	if l, err := ParseLine("muster.mac=x muster.head=http://h"); err == nil || l.Head != "http://h" {
		t.Errorf("%+v, %v", l, err)
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add(`muster.head=http://[::1]:80 muster.key="a b" muster.mac=`)
	f.Add(`"""" = == muster.ca`)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLine(text)
		if err == nil && (l.Head == "" || l.MAC != nil && len(l.MAC) != 6) {
			t.Errorf("%q gives %+v", text, l)
		}
	})
}

// blocked is a console that does not print until it is let go.
type blocked struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *blocked) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func TestConsole(t *testing.T) {
	b := &blocked{}
	b.mu.Lock()
	c := NewConsole(b)
	log := slog.New(c).With("node", "n0")
	for range 2 * consoleLines { // nobody reads: lines are dropped, nobody waits
		log.Info("hello", "error", errors.New("two\nlines"), "empty", "")
	}
	log.Debug("never")
	b.mu.Unlock()
	c.Flush(10 * time.Second)
	line, _, _ := strings.Cut(b.text.String(), "\r\n")
	if !strings.HasSuffix(line, " s  hello, node n0, error two | lines") || !strings.HasPrefix(line, "muster ") {
		t.Errorf("%q", line)
	}
	slog.New(c).Warn("careful")
	c.Flush(10 * time.Second)
	if !strings.Contains(b.text.String(), "! careful") {
		t.Error("a warning is not marked")
	}
}

// testMachine is a machine that has its network.
func testMachine(t *testing.T, h *headtest.Head) *machine {
	t.Helper()
	c := NewConsole(&blocked{})
	m := &machine{console: c, log: slog.New(c), resume: make(chan struct{}, 1), line: Line{Head: h.HTTP}}
	m.client = head.New(h.HTTP, head.Dialer{}, nil)
	t.Cleanup(m.client.Close)
	m.stamps = newStamps(m.log)
	return m
}

func TestFailedStepIsToldOnceAndTriedUntilItWorks(t *testing.T) {
	h := headtest.New(t)
	m := testMachine(t, h)
	n := 0
	m.until(context.Background(), wire.StepImage, func(context.Context) error {
		switch n++; n {
		case 1, 2:
			return errors.New("no such image")
		case 3:
			return &failure{wire.StepRoot, errors.New("truncated")}
		case 4:
			panic("a bug")
		}
		return nil
	})
	h.WaitStep(func(s wire.Step) bool { return strings.Contains(s.Error, "a bug") })
	var told []string
	for _, s := range h.Steps() {
		told = append(told, s.Step+": "+s.Error)
	}
	if len(told) != 3 || told[0] != "image: no such image" || told[1] != "root: truncated" || !strings.HasPrefix(told[2], "image: a fault in the agent: a bug") {
		t.Errorf("told %q", told)
	}
	if m.hello().Stopped != "" {
		t.Errorf("still held up: %q", m.stopped)
	}
}

func TestStopAndResume(t *testing.T) {
	h := headtest.New(t)
	m := testMachine(t, h)
	m.line.Stop = wire.StepImage
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.stopBefore(context.Background(), wire.StepRoot)
		m.stopBefore(context.Background(), wire.StepImage)
		m.stopBefore(context.Background(), wire.StepImage) // a second time it does not stop
	}()
	s := h.WaitStep(func(s wire.Step) bool { return s.Error != "" })
	if s.Step != wire.StepImage || !strings.Contains(s.Error, "resume") {
		t.Errorf("told %+v", s)
	}
	if m.hello().Stopped == "" {
		t.Error("the link would not say that the boot is held up")
	}
	m.resume <- struct{}{}
	<-done
}

func TestStampsArriveInOrderAfterAnOutage(t *testing.T) {
	h := headtest.New(t)
	m := testMachine(t, h)
	away := head.New("http://127.0.0.1:1", head.Dialer{}, nil)
	m.stamps.put(away, wire.Step{Step: wire.StepImage, Error: "superseded"})
	m.stamps.put(m.client, wire.Step{Step: wire.StepImage})
	m.stamps.put(m.client, wire.Step{Step: wire.StepRoot})
	m.stamps.flush(10 * time.Second)
	if got := h.Steps(); len(got) != 2 || got[0].Step != wire.StepImage || got[1].Step != wire.StepRoot {
		t.Errorf("got %+v", got)
	}
}
