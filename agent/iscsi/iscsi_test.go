package iscsi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"

	"muster/shared/iscsi"
	"muster/shared/wire"
)

// target answers reads of content until it has answered some, then it hangs up.
type target struct {
	net.Listener
	content []byte
	mu      sync.Mutex
	logins  int
	spoil   bool // one byte of each answer
}

func newTarget(t *testing.T, content []byte) *target {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tg := &target{Listener: l, content: content}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go tg.serve(conn, 3)
		}
	}()
	return tg
}

func (tg *target) serve(conn net.Conn, commands int) {
	defer conn.Close()
	for range commands + 1 {
		p, err := iscsi.Read(conn, 1<<16)
		if err != nil {
			return
		}
		var a iscsi.PDU
		a.Put32(16, p.Tag())
		if p.Opcode() == iscsi.OpLogin {
			tg.mu.Lock()
			tg.logins++
			tg.mu.Unlock()
			a.Header[0], a.Header[1] = iscsi.OpLoginDone, iscsi.Final|3
			a.Write(conn)
			continue
		}
		off, n := int(binary.BigEndian.Uint64(p.Header[34:]))*512, int(binary.BigEndian.Uint32(p.Header[42:]))*512
		data := slices.Clone(append(tg.content, make([]byte, 512)...)[off : off+n])
		if tg.mu.Lock(); tg.spoil {
			data[7] ^= 1
		}
		tg.mu.Unlock()
		half := n / 1024 * 512
		for _, part := range [][2]int{{0, half}, {half, n}} {
			a.Header[0], a.Header[1] = iscsi.OpDataIn, 0
			if part[1] == n {
				a.Header[1] = iscsi.Final | iscsi.Status
			}
			a.Put32(40, uint32(part[0]))
			a.Data = data[part[0]:part[1]]
			a.Write(conn)
		}
	}
}

func sums(content []byte) (out []byte) {
	for b := range slices.Chunk(content, wire.PieceSize) {
		sum := sha256.Sum256(b)
		out = append(out, sum[:]...)
	}
	return out
}

func TestVerified(t *testing.T) {
	content := make([]byte, 40*wire.PieceSize+1000)
	for i := range content {
		content[i] = byte(i * i >> 7)
	}
	tg := newTarget(t, content)
	troubled := make(chan error, 100)
	disk := &Initiator{Target: wire.Target{Address: tg.Addr().String(), Name: "x"}, Name: "y", Dialer: &net.Dialer{}, Trouble: func(err error) { troubled <- err }}
	t.Cleanup(disk.Close)
	image := wire.Image{Size: int64(len(content))}
	if _, err := Verify(disk, image, sums(content)[32:]); err == nil {
		t.Error("a list that is too short was taken")
	}
	v, err := Verify(disk, image, sums(content))
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			b := make([]byte, 3*wire.PieceSize)
			off := int64(i*5*wire.PieceSize + 4096)
			if err := v.ReadAt(t.Context(), b, off); err != nil || !bytes.Equal(b, content[off:off+int64(len(b))]) {
				t.Errorf("at %d: %v", off, err)
			}
		})
	}
	readers.Wait()
	tail := make([]byte, 4096)
	if err := v.ReadAt(t.Context(), tail, int64(len(content)-1000)); err != nil || !bytes.Equal(tail, append(slices.Clone(content[len(content)-1000:]), make([]byte, 3096)...)) {
		t.Errorf("the end: %v", err)
	}
	if tg.mu.Lock(); tg.logins < 5 {
		t.Errorf("after broken connections it logged in %d times", tg.logins)
	}
	tg.spoil = true
	tg.mu.Unlock()
	if err := v.ReadAt(t.Context(), tail, 39*wire.PieceSize); err == nil {
		t.Error("damaged bytes were taken")
	}
	tg.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	go func() {
		for range troubled { // until it finds nobody
		}
	}()
	cancel(stopped)
	if err := v.ReadAt(ctx, tail, 20*wire.PieceSize+5000); err != nil && !errors.Is(err, stopped) {
		t.Errorf("without a target: %v", err)
	}
}
