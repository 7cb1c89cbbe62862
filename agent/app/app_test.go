package app

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/agent/headtest"
	"muster/shared/wire"
)

func TestParseRun(t *testing.T) {
	for _, tc := range []struct {
		args []string
		err  string
	}{
		{[]string{"--head", "https://10.0.0.1:8443"}, ""},
		{[]string{"--head", "http://h", "--bind", "127.0.0.9", "--state", "/x", "--ca", "y"}, ""},
		{nil, "--head"},
		{[]string{"--head", "10.0.0.1"}, "--head"},
		{[]string{"--head", "ftp://h"}, "--head"},
		{[]string{"--head", "http://h", "--bind", "here"}, "--bind"},
		{[]string{"--head", "http://h", "more"}, "more"},
		{[]string{"--nonsense"}, "nonsense"},
	} {
		_, err := parseRun(tc.args, io.Discard)
		if (tc.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q: %v, want something about %q", tc.args, err, tc.err)
		}
	}
}

// serve runs the service until the test ends or stop is called.
func serve(t *testing.T, args ...string) (stop func() error) {
	t.Helper()
	o, err := parseRun(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, o, io.Discard) }()
	stop = func() error { cancel(); err := <-done; done <- err; return err }
	t.Cleanup(func() { stop() })
	return stop
}

func TestRunByAddress(t *testing.T) {
	h := headtest.New(t)
	stop := serve(t, "--head", h.HTTP, "--state", t.TempDir(), "--bind", "127.0.0.9")
	session := <-h.Sessions
	if host, _, _ := strings.Cut(session.RemoteAddr().String(), ":"); host != "127.0.0.9" {
		t.Errorf("the link comes from %s", host)
	}
	if hello := <-h.Hellos; !hello.InImage || hello.BootID == "" {
		t.Errorf("hello %+v", hello)
	}
	h.WaitStatus(1)
	stream, err := session.Open()
	if err != nil {
		t.Fatal(err)
	}
	wire.WriteHeader(stream, wire.Header{Type: wire.StreamExec, Exec: &wire.Exec{Shell: "echo $((6*7))"}})
	if kind, p, err := wire.ReadFrame(stream, make([]byte, wire.MaxFrame)); err != nil || kind != wire.FrameStdout || string(p) != "42\n" {
		t.Errorf("%d %q %v", kind, p, err)
	}
	if err := stop(); err != nil {
		t.Errorf("a wanted end gives %v", err)
	}
}

func TestRunTrustsTheFirstHeadOnly(t *testing.T) {
	h, state := headtest.New(t), filepath.Join(t.TempDir(), "state")
	stop := serve(t, "--head", h.HTTPS, "--state", state)
	(<-h.Sessions).Close()
	stop()
	if got, err := os.ReadFile(filepath.Join(state, "ca.pem")); !bytes.Equal(got, []byte(h.PEM())) {
		t.Errorf("the authority was not kept: %v", err)
	}
	impostor := headtest.New(t)
	serve(t, "--head", impostor.HTTPS, "--state", state)
	select {
	case <-impostor.Sessions:
		t.Error("linked to another head")
	case <-time.After(time.Second): // nothing must happen; several attempts fit in
	}
}

func TestRunWithGivenAuthority(t *testing.T) {
	h := headtest.New(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte(h.PEM()), 0o644); err != nil {
		t.Fatal(err)
	}
	serve(t, "--head", h.HTTPS, "--state", t.TempDir(), "--ca", ca)
	<-h.Sessions
	o, err := parseRun([]string{"--head", h.HTTPS, "--ca", "/nowhere"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(context.Background(), o, io.Discard); err == nil {
		t.Error("ran without the authority that it was told to trust")
	}
}

func TestMainUsage(t *testing.T) {
	for args, want := range map[string]int{"version": 0, "help": 0, "nonsense": 2, "run": 2} {
		if got := Main([]string{"muster-agent", args}, "test"); got != want {
			t.Errorf("%s gives %d, want %d", args, got, want)
		}
	}
}
