package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// blockSize is that of the disk; its size is a multiple.
const blockSize = 4096

// The kernel's end of a network block device, linux/nbd-netlink.h.
const (
	cmdConnect, cmdDisconnect = 1, 2

	attrIndex, attrSize, attrBlockSize, attrServerFlags, attrSockets = 1, 2, 3, 5, 7
	attrSocketItem, attrSocketFD                                     = 1, 1

	flagHasFlags, flagReadOnly = 1 << 0, 1 << 1
)

// The protocol on the socket, linux/nbd.h; the same as
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, whose
// negotiation the kernel leaves out.
const (
	requestMagic = 0x25609513
	replyMagic   = 0x67446698
	requestSize  = 28
	replySize    = 16

	opRead, opDisconnect = 0, 2
)

// Bounds on what the kernel may ask, which it keeps by itself.
const (
	maxRead    = 32 << 20 // bytes of one request
	maxPending = 64       // requests being answered
)

// source is what a disk shows. ReadAt fills b or fails.
type source interface {
	ReadAt(ctx context.Context, b []byte, off int64) error
}

// disk is a read-only network block device of which this process is the server.
type disk struct {
	path   string
	index  uint32
	family uint16
	conn   *os.File
	ended  sync.WaitGroup
}

// newDisk makes a block device of size bytes that shows from.
func newDisk(ctx context.Context, size int64, from source, log *slog.Logger) (*disk, error) {
	family, err := netlink.GenlFamilyGet("nbd")
	if err != nil {
		return nil, fmt.Errorf("the kernel has no network block devices (module nbd): %w", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[1]) // the kernel has its own reference then
	d := &disk{family: family.ID, conn: os.NewFile(uintptr(pair[0]), "nbd")}
	d.ended.Go(func() {
		if err := serve(ctx, d.conn, from); err != nil && ctx.Err() == nil {
			log.Error("the kernel's end of the image's device", "error", err)
		}
	})
	if err := d.connect(size, pair[1]); err != nil {
		d.conn.Close()
		return nil, fmt.Errorf("a network block device for the image: %w", err)
	}
	d.path = fmt.Sprintf("/dev/nbd%d", d.index)
	return d, nil
}

func (d *disk) request(cmd uint8) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(int(d.family), unix.NLM_F_ACK)
	r.AddData(&nl.Genlmsg{Command: cmd, Version: 1})
	return r
}

func (d *disk) connect(size int64, socket int) error {
	r := d.request(cmdConnect)
	r.AddData(nl.NewRtAttr(attrSize, nl.Uint64Attr(uint64(size))))
	r.AddData(nl.NewRtAttr(attrBlockSize, nl.Uint64Attr(blockSize)))
	r.AddData(nl.NewRtAttr(attrServerFlags, nl.Uint64Attr(flagHasFlags|flagReadOnly)))
	sockets := nl.NewRtAttr(attrSockets|unix.NLA_F_NESTED, nil)
	item := sockets.AddRtAttr(attrSocketItem|unix.NLA_F_NESTED, nil)
	item.AddRtAttr(attrSocketFD, nl.Uint32Attr(uint32(socket)))
	r.AddData(sockets)
	answers, err := r.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return err
	}
	for _, a := range answers {
		attrs, err := nl.ParseRouteAttr(a[nl.SizeofGenlmsg:])
		if err != nil {
			return err
		}
		for _, attr := range attrs {
			if attr.Attr.Type == attrIndex && len(attr.Value) == 4 {
				d.index = nl.NativeEndian().Uint32(attr.Value)
				return nil
			}
		}
	}
	return errors.New("the kernel does not say which it is")
}

// close takes the device away. Nothing may read from it any more.
func (d *disk) close() {
	r := d.request(cmdDisconnect)
	r.AddData(nl.NewRtAttr(attrIndex, nl.Uint32Attr(d.index)))
	r.Execute(unix.NETLINK_GENERIC, 0) // closing the socket ends it too, with a complaint of the kernel
	d.conn.Close()
	d.ended.Wait()
}

// serve answers the kernel until it disconnects. Requests are answered as what
// they ask for comes, each for itself.
func serve(ctx context.Context, conn io.ReadWriter, from source) error {
	var (
		pending sync.WaitGroup
		mu      sync.Mutex // of writing to conn
		slots   = make(chan struct{}, maxPending)
	)
	ctx, cancel := context.WithCancel(ctx)
	defer pending.Wait()
	defer cancel()
	for {
		var q [requestSize]byte
		if _, err := io.ReadFull(conn, q[:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
		op, off, n := binary.BigEndian.Uint32(q[4:])&0xffff, binary.BigEndian.Uint64(q[16:]), binary.BigEndian.Uint32(q[24:])
		switch {
		case binary.BigEndian.Uint32(q[:]) != requestMagic:
			return fmt.Errorf("%x is no request", q)
		case op == opDisconnect:
			return nil
		case op != opRead || n > maxRead:
			return fmt.Errorf("request %d for %d bytes, which was not offered", op, n)
		}
		slots <- struct{}{}
		pending.Go(func() {
			defer func() { <-slots }()
			reply := make([]byte, replySize+int(n))
			binary.BigEndian.PutUint32(reply, replyMagic)
			copy(reply[8:16], q[8:16])
			if err := from.ReadAt(ctx, reply[replySize:], int64(off)); err != nil {
				binary.BigEndian.PutUint32(reply[4:], uint32(unix.EIO))
				reply = reply[:replySize]
			}
			mu.Lock()
			defer mu.Unlock()
			conn.Write(reply)
		})
	}
}
