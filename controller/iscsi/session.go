package iscsi

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"muster/shared/iscsi"
)

// window is how many commands an initiator may send ahead.
const window = 64

// session is one connection.
type session struct {
	target *Target
	conn   net.Conn
	from   netip.Addr
	portal string
	log    *slog.Logger

	named     bool
	discovery bool
	disk      Disk
	release   func()
	segment   int // bytes that the initiator takes in one PDU
	burst     int // and in one sequence of them

	statSN, expCmdSN uint32
}

func (s *session) serve() error {
	s.segment, s.burst = 8192, 256<<10 // where nothing is said, RFC 7143, 13.12 and 13.13
	defer func() {
		if s.disk != nil {
			s.disk.Close()
			s.release()
		}
	}()
	s.conn.SetReadDeadline(time.Now().Add(loginTime))
	if err := s.login(); err != nil {
		return err
	}
	s.conn.SetReadDeadline(time.Time{}) // a node may read nothing for days; TCP finds out whether it is there
	for {
		p, err := iscsi.Read(s.conn, maxReceive)
		if err != nil {
			return err
		}
		if p.Header[0]&iscsi.Immediate == 0 {
			if p.Uint32(24) != s.expCmdSN {
				return fmt.Errorf("command %d comes where %d was due", p.Uint32(24), s.expCmdSN)
			}
			s.expCmdSN++
		}
		if end, err := s.handle(p); end || err != nil {
			return err
		}
	}
}

func (s *session) handle(p *iscsi.PDU) (end bool, err error) {
	switch p.Opcode() {
	case iscsi.OpCommand:
		if s.disk == nil {
			return true, errors.New("a command in a session for discovery")
		}
		return false, s.command(p)
	case iscsi.OpNopOut:
		if p.Tag() == iscsi.NoTag {
			return false, nil
		}
		a := s.answer(p, iscsi.OpNopIn)
		a.Put32(20, iscsi.NoTag)
		a.Data = p.Data[:min(len(p.Data), s.segment)]
		return false, s.send(a)
	case iscsi.OpText:
		return false, s.text(p)
	case iscsi.OpTask: // every command before it has been answered
		return false, s.send(s.answer(p, iscsi.OpTaskDone))
	case iscsi.OpLogout:
		return true, s.send(s.answer(p, iscsi.OpLogoutEnd))
	}
	a := s.answer(p, iscsi.OpReject)
	a.Header[2] = 5 // command not supported
	a.Put32(16, iscsi.NoTag)
	a.Data = p.Header[:]
	return false, s.send(a)
}

// text answers SendTargets, the one thing that is asked by text.
func (s *session) text(p *iscsi.PDU) error {
	pairs, err := iscsi.ParseText(p.Data)
	if err != nil {
		return err
	}
	var out []iscsi.Pair
	if asked := iscsi.Value(pairs, "SendTargets"); asked != "" {
		for _, name := range s.target.Disks.Targets(s.from) {
			if asked == "All" || asked == name {
				out = append(out, iscsi.Pair{Key: "TargetName", Value: name}, iscsi.Pair{Key: "TargetAddress", Value: s.portal + ",1"})
			}
		}
	}
	a := s.answer(p, iscsi.OpTextDone)
	a.Put32(20, iscsi.NoTag)
	a.Data = iscsi.Text(out)
	return s.send(a)
}

func (s *session) answer(p *iscsi.PDU, op byte) *iscsi.PDU {
	var a iscsi.PDU
	a.Header[0], a.Header[1] = op, iscsi.Final
	a.Put32(16, p.Tag())
	return &a
}

// send sends what takes a status number of its own.
func (s *session) send(a *iscsi.PDU) error {
	a.Put32(24, s.statSN)
	s.statSN++
	return s.write(a)
}

func (s *session) write(a *iscsi.PDU) error {
	a.Put32(28, s.expCmdSN)
	a.Put32(32, s.expCmdSN+window-1)
	s.conn.SetWriteDeadline(time.Now().Add(sendTime))
	return a.Write(s.conn)
}

// reply is how a command ends.
type reply struct {
	data  []byte
	sense [3]byte // key, code, qualifier; zero when all is well
}

// finish ends a command: with its data, cut to what the initiator has room for.
func (s *session) finish(p *iscsi.PDU, r reply) error {
	room := p.Uint32(20)
	if p.Header[1]&iscsi.ReadFlag == 0 {
		room = 0
	}
	data := r.data
	flags, residual := byte(0), uint32(0)
	switch n := uint32(len(data)); {
	case n > room:
		flags, residual, data = iscsi.Overflow, n-room, data[:room]
	case n < p.Uint32(20):
		flags, residual = iscsi.Underflow, p.Uint32(20)-n
	}
	if r.sense == [3]byte{} && len(data) > 0 {
		return s.sendData(p, 0, 0, data, true, flags, residual)
	}
	a := s.answer(p, iscsi.OpResponse)
	a.Header[1] |= flags
	a.Put32(44, residual)
	if r.sense != [3]byte{} {
		a.Header[3] = 2                             // check condition
		a.Data = []byte{0, 18, 0x70, 0, r.sense[0], // sense in fixed format
			0, 0, 0, 0, 10, 0, 0, 0, 0, r.sense[1], r.sense[2], 0, 0, 0, 0}
	}
	return s.send(a)
}

// sendData sends data in PDUs that the initiator takes, the first of which has
// number sn and is for offset; the last ends the command if last is set.
func (s *session) sendData(p *iscsi.PDU, sn, offset uint32, data []byte, last bool, flags byte, residual uint32) error {
	for len(data) > 0 {
		left := s.burst - int(offset)%s.burst // of this sequence
		n := min(len(data), s.segment, left)
		a := s.answer(p, iscsi.OpDataIn)
		if a.Header[1] = 0; n == left || last && n == len(data) {
			a.Header[1] = iscsi.Final
		}
		a.Put32(20, iscsi.NoTag)
		a.Put32(36, sn)
		a.Put32(40, offset)
		a.Data = data[:n]
		data, sn, offset = data[n:], sn+1, offset+uint32(n)
		if !last || len(data) > 0 {
			if err := s.write(a); err != nil {
				return err
			}
			continue
		}
		a.Header[1] |= iscsi.Status | flags
		a.Put32(44, residual)
		return s.send(a)
	}
	return nil
}
