package exec_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"muster/shared/wire"
)

// A command that ends without having read its input is answered as any other,
// and so are those that follow from the same client.
func TestUnreadInput(t *testing.T) {
	output := strings.Repeat("long", 100_000)
	h, _ := start(t, func(a *agent) {
		a.write(wire.FrameStdout, output)
		a.exit(4, "")
	})
	idle, feed := io.Pipe()
	defer feed.Close()
	for i, input := range []func() io.Reader{
		func() io.Reader { return strings.NewReader("x") },
		func() io.Reader { return bytes.NewReader(make([]byte, 20<<20)) },
		func() io.Reader { return io.MultiReader(bytes.NewReader(make([]byte, 4<<20))) },
		func() io.Reader { return idle },
		func() io.Reader { return io.LimitReader(zeros{}, 1<<20) },
		func() io.Reader { return strings.NewReader("") },
	} {
		for range 5 {
			resp, err := putRaw(t.Context(), h, "cmd=true", input())
			if err != nil {
				t.Fatalf("input %d: %v", i, err)
			}
			out, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(out) != output || resp.Trailer.Get("X-Exit-Status") != "4" {
				t.Fatalf("input %d: %d bytes, %v, %v", i, len(out), err, resp.Trailer)
			}
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
