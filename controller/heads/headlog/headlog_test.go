package headlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestKeepsTheLastLines(t *testing.T) {
	var out bytes.Buffer
	b := New()
	log := slog.New(b.Handler(slog.NewTextHandler(&out, nil)))
	log.Debug("not wanted by the log itself")
	for i := range Keep + 10 {
		log.Info("line", "n", i)
	}
	log.With("part", "dhcp").WithGroup("packet").Warn("odd", "from", "10.0.0.1", "error", errors.New("bad\nthing"))
	lines, forgotten := b.Last(3, slog.LevelDebug)
	var got []string
	for _, l := range lines {
		got = append(got, l.Level.String()+" "+l.Text)
		if l.Time.IsZero() {
			t.Error("a line without a time")
		}
	}
	want := fmt.Sprintf("INFO line n=%d|INFO line n=%d|WARN odd part=dhcp packet.from=10.0.0.1 packet.error=bad thing", Keep+8, Keep+9)
	if strings.Join(got, "|") != want || forgotten != 11 {
		t.Errorf("got %q, %d forgotten, want %q", strings.Join(got, "|"), forgotten, want)
	}
	if all, _ := b.Last(1<<20, slog.LevelDebug); len(all) != Keep {
		t.Errorf("%d lines are kept", len(all))
	}
	if warn, _ := b.Last(10, slog.LevelWarn); len(warn) != 1 {
		t.Errorf("%d warnings", len(warn))
	}
	if n := strings.Count(out.String(), "\n"); n != Keep+11 {
		t.Errorf("%d lines were passed on", n)
	}
}

func TestSecretsAreNotKept(t *testing.T) {
	const secret = "s3cr3t-v4lu3"
	jwt := "eyJhbGciOiJIUzI1NiJ9." + secret + ".sig"
	b := New()
	log := slog.New(b.Handler(slog.NewTextHandler(&bytes.Buffer{}, nil)))
	log.With("token", secret).Info("a", "password", secret, "admin_pass", secret, "node_key", secret, "Authorization", "Bearer "+secret)
	log.Info("it said Bearer "+secret, "header", "authorization: bearer "+secret, "url", "http://root:"+secret+"@bmc/redfish", "body", `{"password": "`+secret+`"}`)
	log.Info("logged in", "with", jwt, slog.Group("request", "secret", secret), "cmd", "ipmitool -U a password="+secret)
	log.Info("-----BEGIN OPENSSH PRIVATE KEY-----\n" + secret)
	lines, _ := b.Last(10, slog.LevelDebug)
	if len(lines) != 4 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, l := range lines {
		if strings.Contains(l.Text, secret) || !strings.Contains(l.Text, hidden) {
			t.Errorf("kept: %s", l.Text)
		}
	}
}

func FuzzLines(f *testing.F) {
	for _, s := range []string{"x", "\xff\n", strings.Repeat("é", maxText), "password=", "eyJaaaaaaaa.b.c"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		b := New()
		log := slog.New(b.Handler(slog.NewTextHandler(&bytes.Buffer{}, nil)))
		log.LogAttrs(context.Background(), slog.LevelInfo, value, slog.String(key, value))
		for _, l := range b.lines {
			if len(l.Text) > 3*maxText || !utf8.ValidString(l.Text) || strings.ContainsAny(l.Text, "\n\r\x00") {
				t.Errorf("kept %q", l.Text)
			}
		}
	})
}
