package exec_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"muster/controller/api"
	"muster/controller/api/apitest"
	"muster/controller/fleet/fleettest"
	"muster/shared/wire"
)

func putRaw(ctx context.Context, h *fleettest.Head, query string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, "PUT", h.Server.URL+api.Root+"/node/n0/exec?"+query, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	return h.Server.Client().Do(req)
}

// Input goes on to the command as it comes, any bytes, while output comes back.
func TestInputComesAsItIsSent(t *testing.T) {
	h, _ := start(t, func(a *agent) {
		for {
			kind, p, err := a.read()
			if err != nil {
				return
			}
			if kind == wire.FrameStdin && len(p) == 0 {
				break
			}
			a.write(wire.FrameStdout, string(p))
		}
		a.exit(0, strings.Join(a.header.Exec.Argv, "|"))
	})
	in, feed := io.Pipe()
	go feed.Write([]byte("\xff\x00first"))
	resp, err := putRaw(t.Context(), h, "arg=cat&arg=a+b", in)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, len("\xff\x00first"))
	for _, want := range []string{"\xff\x00first", "\x80second"} {
		if want != "\xff\x00first" { // the input was still open when the first output came
			if _, err := feed.Write([]byte(want)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadFull(resp.Body, buf[:len(want)]); err != nil || string(buf[:len(want)]) != want {
			t.Fatalf("%q came back as %q, %v", want, buf[:len(want)], err)
		}
	}
	feed.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Fatalf("%q after the end of the input, %v", rest, err)
	}
	if resp.Trailer.Get("X-Exit-Status") != "0" || resp.Trailer.Get("X-Exit-Error") != `"cat|a b"` {
		t.Errorf("trailer %v", resp.Trailer)
	}
}

// Half an input must not pass for all of it: the command is ended.
func TestInputBreaksOff(t *testing.T) {
	gone := make(chan error, 1)
	h, _ := start(t, func(a *agent) {
		for {
			kind, p, err := a.read()
			if err != nil {
				gone <- nil
				return
			}
			if kind == wire.FrameStdin && len(p) == 0 {
				gone <- errors.New("the command was told that its input is complete")
				return
			}
		}
	})
	in, feed := io.Pipe()
	go func() {
		feed.Write([]byte("half"))
		feed.CloseWithError(errors.New("the client's disk broke"))
	}()
	if resp, err := putRaw(t.Context(), h, "cmd=cat", in); err == nil {
		resp.Body.Close()
	}
	if err := apitest.Receive(t, gone); err != nil {
		t.Error(err)
	}
}

func TestRawRefusals(t *testing.T) {
	h, _ := start(t, func(a *agent) { t.Error("a command reached the node") })
	for _, query := range []string{"", "cmd=", "cmd=+", "arg=", "cmd=x&timeout=soon", "cmd=x&timeout=-1", "cmd=x&timeout=NaN"} {
		resp, err := putRaw(t.Context(), h, query, strings.NewReader("input"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: status %d, want 400", query, resp.StatusCode)
		}
	}
}
