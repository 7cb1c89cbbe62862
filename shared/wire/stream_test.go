package wire

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestHeaderAndFrames(t *testing.T) {
	var b bytes.Buffer
	if err := WriteHeader(&b, Header{Type: StreamExec, Exec: &Exec{Shell: "true", TTY: true, Rows: 24}}); err != nil {
		t.Fatal(err)
	}
	payload := bytes.Repeat([]byte{0, 1, 0xff}, MaxFrame/3)
	for _, p := range [][]byte{payload, nil, []byte("x")} {
		if err := WriteFrame(&b, FrameStdout, p); err != nil {
			t.Fatal(err)
		}
	}
	h, err := ReadHeader(&b)
	if err != nil || h.Type != StreamExec || h.Exec.Shell != "true" || h.Exec.Rows != 24 {
		t.Fatalf("header came back as %+v, %v", h, err)
	}
	buf := make([]byte, MaxFrame)
	for _, want := range [][]byte{payload, {}, []byte("x")} {
		kind, got, err := ReadFrame(&b, buf)
		if err != nil || kind != FrameStdout || !bytes.Equal(got, want) {
			t.Fatalf("frame of %d bytes came back as kind %d, %d bytes, %v", len(want), kind, len(got), err)
		}
	}
	if _, _, err := ReadFrame(&b, buf); err != io.EOF {
		t.Fatalf("behind the last frame: %v, want EOF", err)
	}
}

func TestBounds(t *testing.T) {
	if err := WriteFrame(io.Discard, FrameStdin, make([]byte, MaxFrame+1)); err == nil {
		t.Error("a frame over the bound was written")
	}
	if err := WriteHeader(io.Discard, Header{Exec: &Exec{Shell: strings.Repeat("x", MaxHeader)}}); err == nil {
		t.Error("a header over the bound was written")
	}
	buf := make([]byte, MaxFrame)
	if _, _, err := ReadFrame(strings.NewReader("\x01\xff\xff\xff\xff"), buf); err == nil {
		t.Error("a frame that announces 4 GiB was taken")
	}
	if _, err := ReadHeader(strings.NewReader("\xff\xff\xff\xff{}")); err == nil {
		t.Error("a header that announces 4 GiB was taken")
	}
	if _, _, err := ReadFrame(strings.NewReader("\x01\x00\x00\x00\x05ab"), buf); err != io.ErrUnexpectedEOF {
		t.Errorf("a frame cut off: %v, want unexpected EOF", err)
	}
}

// FuzzStream reads what a hostile peer may send: it must end, and never panic
// nor give more than it was sent.
func FuzzStream(f *testing.F) {
	var b bytes.Buffer
	WriteHeader(&b, Header{Type: StreamExec, Exec: &Exec{Argv: []string{"true"}}})
	WriteFrame(&b, FrameExit, []byte(`{"status":1}`))
	f.Add(b.Bytes())
	f.Add([]byte("\x00\x00\x00\x02{}\x03\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x8f\xff\xff{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		if _, err := ReadHeader(r); err != nil {
			return
		}
		buf, sum := make([]byte, MaxFrame), 0
		for {
			_, payload, err := ReadFrame(r, buf)
			if err != nil {
				return
			}
			if sum += len(payload); sum > len(data) {
				t.Fatalf("%d bytes came out of %d", sum, len(data))
			}
		}
	})
}
