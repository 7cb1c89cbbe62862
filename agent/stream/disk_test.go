package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
)

// memory is a source of bytes of which some cannot be read.
type memory struct {
	content []byte
	gate    chan struct{} // reads at 0 wait for it
}

func (m *memory) ReadAt(ctx context.Context, b []byte, off int64) error {
	if off == 0 && m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if off+int64(len(b)) > int64(len(m.content)) {
		return errors.New("beyond the end")
	}
	copy(b, m.content[off:])
	return nil
}

func request(op uint32, handle, off uint64, n uint32) []byte {
	q := make([]byte, 0, requestSize)
	q = binary.BigEndian.AppendUint32(q, requestMagic)
	q = binary.BigEndian.AppendUint32(q, op)
	q = binary.BigEndian.AppendUint64(q, handle)
	q = binary.BigEndian.AppendUint64(q, off)
	return binary.BigEndian.AppendUint32(q, n)
}

// answerOf reads one reply and gives whose it is, its error, and its data.
func answerOf(t *testing.T, conn io.Reader, n int) (handle uint64, status uint32, data []byte) {
	t.Helper()
	head := make([]byte, replySize)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatal(err)
	}
	if binary.BigEndian.Uint32(head) != replyMagic {
		t.Fatalf("%x is no reply", head)
	}
	if status = binary.BigEndian.Uint32(head[4:]); status == 0 {
		data = make([]byte, n)
		if _, err := io.ReadFull(conn, data); err != nil {
			t.Fatal(err)
		}
	}
	return binary.BigEndian.Uint64(head[8:]), status, data
}

func TestServeAnswersWhatIsThereFirst(t *testing.T) {
	m := &memory{content: bytes.Repeat([]byte("0123456789abcdef"), 1<<12), gate: make(chan struct{})}
	kernel, server := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serve(t.Context(), server, m) }()
	kernel.Write(request(opRead, 1, 0, 4096))
	kernel.Write(request(opRead, 2, 8192, 4096))
	if handle, status, data := answerOf(t, kernel, 4096); handle != 2 || status != 0 || !bytes.Equal(data, m.content[8192:12288]) {
		t.Errorf("the first answer is that of %d, status %d", handle, status)
	}
	close(m.gate)
	if handle, status, _ := answerOf(t, kernel, 4096); handle != 1 || status != 0 {
		t.Errorf("then that of %d, status %d", handle, status)
	}
	kernel.Write(request(opRead, 3, 1<<40, 4096))
	if handle, status, _ := answerOf(t, kernel, 0); handle != 3 || status == 0 {
		t.Errorf("a read that fails: %d, status %d", handle, status)
	}
	kernel.Write(request(opDisconnect, 4, 0, 0))
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestServeEnds(t *testing.T) {
	for name, sent := range map[string][]byte{
		"nonsense": bytes.Repeat([]byte{7}, requestSize),
		"a write":  request(1, 1, 0, 4096),
		"too much": request(opRead, 1, 0, maxRead+1),
		"cut off":  request(opRead, 1, 0, 4096)[:9],
	} {
		kernel, server := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- serve(t.Context(), server, &memory{}) }()
		kernel.Write(sent)
		kernel.Close()
		if err := <-ended; err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
