package tftp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

const (
	defaultTimeout = time.Second
	retries        = 6               // of one window, before the transfer is given up
	maxTransfer    = 5 * time.Minute // in all: at 512 bytes a block over a slow link
)

// errProbe ends a transfer of which the client only wanted to know the size.
var errProbe = errors.New("only the size was asked for")

// transfer sends one file to one client over its own socket, which is
// connected, so that packets from elsewhere never get here.
type transfer struct {
	request
	conn *net.UDPConn
	file io.ReaderAt
	size int64
	buf  []byte
}

// run sends the file. In the numbers that are used here blocks count from 1
// without rolling over, and 0 is the OACK; on the wire they are 16 bits wide.
func (t *transfer) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, maxTransfer, fmt.Errorf("not done after %s", maxTransfer))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { t.conn.Close() })
	defer stop()
	t.buf = make([]byte, 4+t.block)
	var err error
	if oack := t.oack(t.size); oack != nil {
		if _, err = t.exchange(0, 0, func() error { return t.send(oack) }); errors.Is(err, errGaveUp) {
			return errProbe
		}
	}
	last := t.size/int64(t.block) + 1 // a block that is not full ends the file
	for acked := int64(0); err == nil && acked < last; {
		to := min(acked+int64(t.window), last)
		acked, err = t.exchange(acked, to, func() error { return t.blocks(acked+1, to) })
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// exchange sends until the client acknowledges something in the window that
// ends with to, and gives how far it has got. An old ACK repeated is no reason
// to send again when the window is one block: that would double every packet
// from there on (the "sorcerer's apprentice"). In a longer window it says that
// the first block was lost (RFC 7440).
func (t *transfer) exchange(from, to int64, send func() error) (int64, error) {
	in := make([]byte, 516)
	for try := 0; try <= retries; try++ {
		if err := send(); err != nil {
			return from, err
		}
		if err := t.conn.SetReadDeadline(time.Now().Add(t.timeout)); err != nil {
			return from, err
		}
		for {
			n, err := t.conn.Read(in)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return from, err
			}
			block, isAck, err := ackOf(in[:n])
			if err != nil {
				return from, err
			}
			if !isAck {
				continue
			}
			ahead := int64(block - uint16(from)) // modulo 65536: the number rolls over
			if ahead <= to-from && (ahead > 0 || to == 0) {
				return from + ahead, nil
			}
			if ahead == 0 && t.window > 1 {
				break
			}
		}
	}
	return from, fmt.Errorf("no answer after block %d, tried %d times", from, retries+1)
}

func (t *transfer) blocks(from, to int64) error {
	for b := from; b <= to; b++ {
		binary.BigEndian.PutUint16(t.buf, opData)
		binary.BigEndian.PutUint16(t.buf[2:], uint16(b))
		n, err := t.file.ReadAt(t.buf[4:], (b-1)*int64(t.block))
		if err != nil && err != io.EOF {
			return err
		}
		if err := t.send(t.buf[:4+n]); err != nil {
			return err
		}
	}
	return nil
}

func (t *transfer) send(b []byte) error {
	_, err := t.conn.Write(b)
	return err
}
