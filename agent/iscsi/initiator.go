// Package iscsi reads an image over iSCSI (RFC 7143), piece by piece as it is
// wanted, and never gives up: a connection that breaks is made anew.
//
// It is not the kernel's initiator, which needs a program of its own beside it
// all the same, for the login and for what follows a broken connection, and
// cannot tell whether what it read is the image. Here every piece is verified
// before anybody sees it; the kernel gets its disk as in package stream. The
// package must not decide what is read, nor make devices.
package iscsi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"muster/shared/iscsi"
	"muster/shared/wire"
)

const (
	blockSize   = 512
	maxData     = 256 << 10 // bytes in one PDU
	maxCommands = 16        // at once; less than any target's window
	stall       = 20 * time.Second
	minDelay    = 250 * time.Millisecond
	maxDelay    = 5 * time.Second
)

// Initiator reads one disk of a target.
type Initiator struct {
	Target  wire.Target
	Name    string // its own, an iSCSI qualified name
	Dialer  *net.Dialer
	Trouble func(error) // is told each new reason why reading does not go on

	connecting sync.Mutex
	mu         sync.Mutex
	conn       *conn
	said       string
}

// ReadAt fills b with whole blocks from off on, for as long as that takes.
func (i *Initiator) ReadAt(ctx context.Context, b []byte, off int64) error {
	for delay := minDelay; ; delay = min(2*delay, maxDelay) {
		c, err := i.connected(ctx)
		if err == nil {
			if err = c.read(ctx, b, off); err == nil {
				i.tell(nil)
				return nil
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		i.tell(err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(delay):
		}
	}
}

func (i *Initiator) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	i.mu.Lock()
	news := text != i.said
	i.said = text
	i.mu.Unlock()
	if news && err != nil {
		i.Trouble(fmt.Errorf("iSCSI target %s at %s: %w", i.Target.Name, i.Target.Address, err))
	}
}

// connected gives the connection, a new one where it is broken.
func (i *Initiator) connected(ctx context.Context) (*conn, error) {
	i.connecting.Lock()
	defer i.connecting.Unlock()
	if i.conn != nil && i.conn.alive() {
		return i.conn, nil
	}
	raw, err := i.Dialer.DialContext(ctx, "tcp", i.Target.Address)
	if err != nil {
		return nil, err
	}
	c := &conn{raw: raw, pending: map[uint32]*command{}, slots: make(chan struct{}, maxCommands)}
	if err := c.login(i.Name, i.Target.Name); err != nil {
		raw.Close()
		return nil, err
	}
	go c.receive()
	i.conn = c
	return c, nil
}

// Close ends the connection.
func (i *Initiator) Close() {
	i.connecting.Lock()
	defer i.connecting.Unlock()
	if i.conn != nil {
		i.conn.end(net.ErrClosed)
	}
}

// conn is one session.
type conn struct {
	raw   net.Conn
	slots chan struct{}

	writing sync.Mutex
	mu      sync.Mutex
	pending map[uint32]*command
	tag     uint32
	cmdSN   uint32
	statSN  uint32 // that is expected next
	broken  error
}

// command is a read under way.
type command struct {
	buf  []byte
	got  int
	done chan error // one result
}

func (c *conn) login(name, target string) error {
	c.raw.SetDeadline(time.Now().Add(stall))
	defer c.raw.SetDeadline(time.Time{})
	var p iscsi.PDU
	p.Header[0], p.Header[1] = iscsi.OpLogin|iscsi.Immediate, iscsi.Final|1<<2|3 // from the operational stage to the full feature phase
	p.Header[8] = 0x80                                                           // an ISID of a random kind
	binary.BigEndian.PutUint32(p.Header[9:], uint32(time.Now().UnixNano()))
	p.Put32(24, 1)
	p.Data = iscsi.Text([]iscsi.Pair{
		{Key: "InitiatorName", Value: name}, {Key: "TargetName", Value: target}, {Key: "SessionType", Value: "Normal"},
		{Key: "HeaderDigest", Value: "None"}, {Key: "DataDigest", Value: "None"}, {Key: "MaxConnections", Value: "1"},
		{Key: "MaxRecvDataSegmentLength", Value: fmt.Sprint(maxData)}, {Key: "MaxBurstLength", Value: "1048576"},
		{Key: "InitialR2T", Value: "Yes"}, {Key: "ImmediateData", Value: "No"}, {Key: "ErrorRecoveryLevel", Value: "0"},
		{Key: "DefaultTime2Wait", Value: "0"}, {Key: "DefaultTime2Retain", Value: "0"},
	})
	if err := p.Write(c.raw); err != nil {
		return err
	}
	a, err := iscsi.Read(c.raw, iscsi.MaxText)
	switch {
	case err != nil:
		return err
	case a.Opcode() != iscsi.OpLoginDone:
		return fmt.Errorf("it answers the login with PDU %#x", a.Opcode())
	case a.Header[36] == 2 && a.Header[37] == 3:
		return errors.New("it has no such disk for this node; the head's log says why")
	case a.Header[36] != 0:
		return fmt.Errorf("it refuses the login, status %02x%02x", a.Header[36], a.Header[37])
	case a.Header[1]&(iscsi.Final|3) != iscsi.Final|3:
		return errors.New("it wants to negotiate on, which this initiator does not")
	}
	c.cmdSN, c.statSN = 1, a.Uint32(24)+1
	return nil
}

func (c *conn) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken == nil
}

// end fails all that is under way.
func (c *conn) end(err error) {
	c.raw.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = err
	}
	for tag, cmd := range c.pending {
		cmd.done <- err
		delete(c.pending, tag)
	}
}

func (c *conn) read(ctx context.Context, b []byte, off int64) error {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// The target may still be writing to b's owner when ctx ends: it has its own.
	cmd := &command{buf: make([]byte, len(b)), done: make(chan error, 1)}
	if err := c.send(cmd, off); err != nil {
		c.end(err)
		return err
	}
	slow := time.NewTimer(stall)
	defer slow.Stop()
	select {
	case err := <-cmd.done:
		copy(b, cmd.buf)
		return err
	case <-slow.C:
		err := fmt.Errorf("nothing came for %v", stall)
		c.end(err)
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *conn) send(cmd *command, off int64) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	if c.broken != nil {
		c.mu.Unlock()
		return c.broken
	}
	c.tag++
	tag, sn, stat := c.tag, c.cmdSN, c.statSN
	c.cmdSN++
	c.pending[tag] = cmd
	c.mu.Unlock()
	var p iscsi.PDU
	p.Header[0], p.Header[1] = iscsi.OpCommand, iscsi.Final|iscsi.ReadFlag|1
	p.Put32(16, tag)
	p.Put32(20, uint32(len(cmd.buf)))
	p.Put32(24, sn)
	p.Put32(28, stat)
	p.Header[32] = 0x88 // READ(16)
	binary.BigEndian.PutUint64(p.Header[34:], uint64(off/blockSize))
	binary.BigEndian.PutUint32(p.Header[42:], uint32(len(cmd.buf)/blockSize))
	c.raw.SetWriteDeadline(time.Now().Add(stall))
	return p.Write(c.raw)
}

// receive takes what comes until the connection breaks.
func (c *conn) receive() {
	for {
		p, err := iscsi.Read(c.raw, maxData)
		if err == nil {
			err = c.take(p)
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

func (c *conn) take(p *iscsi.PDU) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	cmd := c.pending[p.Tag()]
	switch p.Opcode() {
	case iscsi.OpDataIn:
		if cmd == nil {
			return nil // nobody waits any more
		}
		if at := int(p.Uint32(40)); at != cmd.got || at+len(p.Data) > len(cmd.buf) {
			return errors.New("it sends data that was not asked for")
		}
		cmd.got += copy(cmd.buf[cmd.got:], p.Data)
		if p.Header[1]&iscsi.Status == 0 {
			return nil
		}
	case iscsi.OpResponse:
	default:
		return fmt.Errorf("it sends PDU %#x", p.Opcode())
	}
	c.statSN = p.Uint32(24) + 1
	if cmd == nil {
		return nil
	}
	delete(c.pending, p.Tag())
	switch {
	case p.Header[3] != 0:
		cmd.done <- fmt.Errorf("it cannot read, SCSI status %#x, sense %x", p.Header[3], p.Data)
	case cmd.got != len(cmd.buf):
		cmd.done <- fmt.Errorf("it sent %d bytes instead of %d", cmd.got, len(cmd.buf))
	default:
		cmd.done <- nil
	}
	return nil
}
