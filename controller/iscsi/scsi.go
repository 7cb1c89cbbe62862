package iscsi

import (
	"encoding/binary"
	"encoding/hex"
	"io"

	"muster/shared/iscsi"
)

// blockSize is that of every disk: what every BIOS knows.
const blockSize = 512

// maxRead is how much is read at once; a longer read is answered in parts.
const maxRead = 256 << 10

// The sense of a command that fails: key, code, qualifier (SPC-4, 4.5).
var (
	badCommand = [3]byte{5, 0x20, 0}
	badRange   = [3]byte{5, 0x21, 0}
	badField   = [3]byte{5, 0x24, 0}
	badLUN     = [3]byte{5, 0x25, 0}
	protected  = [3]byte{7, 0x27, 0}
	unreadable = [3]byte{3, 0x11, 0}
)

// blocks is the size of the disk in blocks, the last one filled up.
func (s *session) blocks() uint64 { return uint64((s.disk.Size() + blockSize - 1) / blockSize) }

// command answers a SCSI command (SPC-4, SBC-3).
func (s *session) command(p *iscsi.PDU) error {
	cdb, be := p.Header[32:48], binary.BigEndian
	if lun := be.Uint64(p.Header[8:]); lun != 0 {
		switch cdb[0] {
		case 0x12: // INQUIRY: no such unit
			return s.finish(p, reply{data: cut([]byte{0x7f, 0, 6, 2, 31, 35: 0}, be.Uint16(cdb[3:]))})
		case 0xa0:
		default:
			return s.finish(p, reply{sense: badLUN})
		}
	}
	switch cdb[0] {
	case 0x00, 0x1b, 0x1e, 0x35, 0x91, 0x2f, 0x8f: // TEST UNIT READY, START STOP, PREVENT REMOVAL, SYNCHRONIZE CACHE, VERIFY
		return s.finish(p, reply{})
	case 0x03: // REQUEST SENSE: none is kept
		return s.finish(p, reply{data: cut([]byte{0x70, 7: 10, 17: 0}, uint16(cdb[4]))})
	case 0x12:
		return s.finish(p, s.inquiry(cdb))
	case 0x1a: // MODE SENSE(6): write protected, no pages
		return s.finish(p, reply{data: cut([]byte{3, 0, 0x80, 0}, uint16(cdb[4]))})
	case 0x5a: // MODE SENSE(10)
		return s.finish(p, reply{data: cut([]byte{0, 6, 0, 0x80, 0, 0, 0, 0}, be.Uint16(cdb[7:]))})
	case 0xa0: // REPORT LUNS
		return s.finish(p, reply{data: cut32([]byte{3: 8, 15: 0}, be.Uint32(cdb[6:]))})
	case 0x25:
		return s.finish(p, reply{data: s.capacity10()})
	case 0x9e:
		if cdb[1]&0x1f != 0x10 {
			return s.finish(p, reply{sense: badField})
		}
		return s.finish(p, reply{data: cut32(s.capacity16(), be.Uint32(cdb[10:]))})
	case 0x08: // READ(6)
		n := uint32(cdb[4])
		if n == 0 {
			n = 256
		}
		return s.read(p, uint64(be.Uint32(cdb[0:])&0x1fffff), n)
	case 0x28:
		return s.read(p, uint64(be.Uint32(cdb[2:])), uint32(be.Uint16(cdb[7:])))
	case 0xa8:
		return s.read(p, uint64(be.Uint32(cdb[2:])), be.Uint32(cdb[6:]))
	case 0x88:
		return s.read(p, be.Uint64(cdb[2:]), be.Uint32(cdb[10:]))
	case 0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0x41, 0x93, 0x42, 0x04, 0x89: // all that writes
		return s.finish(p, reply{sense: protected})
	}
	return s.finish(p, reply{sense: badCommand})
}

// cut gives what an allocation length leaves of an answer.
func cut(b []byte, n uint16) []byte { return b[:min(len(b), int(n))] }

func cut32(b []byte, n uint32) []byte { return b[:min(uint32(len(b)), n)] }

// inquiry says what the disk is, and by its pages what else is known of it.
func (s *session) inquiry(cdb []byte) reply {
	room := binary.BigEndian.Uint16(cdb[3:])
	if cdb[1]&1 == 0 {
		if cdb[2] != 0 {
			return reply{sense: badField}
		}
		b := []byte{0, 0, 6, 0x12, 31, 0, 0, 2, 35: 0} // a disk, SPC-4, queues commands
		copy(b[8:], "muster  image           1   ")
		return reply{data: cut(b, room)}
	}
	serial := s.disk.Serial()
	var page []byte
	switch cdb[2] {
	case 0x00:
		page = []byte{0x00, 0x80, 0x83, 0xb0, 0xb1}
	case 0x80:
		page = []byte(serial)
	case 0x83: // a name made of the content: NAA 3h is locally assigned
		id, _ := hex.DecodeString(serial[:16])
		id[0] = 0x30 | id[0]&0x0f
		page = append([]byte{1, 3, 0, 8}, id...)
	case 0xb0:
		page = make([]byte, 60)
		binary.BigEndian.PutUint16(page[2:], 8)                     // reads are best a multiple of this
		binary.BigEndian.PutUint32(page[8:], maxSegment/blockSize)  // and best this long
		binary.BigEndian.PutUint32(page[4:], maxTransfer/blockSize) // never longer
	case 0xb1:
		page = []byte{0, 1, 59: 0} // it does not rotate
	default:
		return reply{sense: badField}
	}
	return reply{data: cut(append([]byte{0, cdb[2], byte(len(page) >> 8), byte(len(page))}, page...), room)}
}

// maxTransfer is how much one command may read, in bytes.
const maxTransfer = 32 << 20

func (s *session) capacity10() []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint32(b, uint32(min(s.blocks()-1, 0xffffffff)))
	binary.BigEndian.PutUint32(b[4:], blockSize)
	return b
}

func (s *session) capacity16() []byte {
	b := make([]byte, 32)
	binary.BigEndian.PutUint64(b, s.blocks()-1)
	binary.BigEndian.PutUint32(b[8:], blockSize)
	b[13] = 3 // of 8 blocks each physical one
	return b
}

// read sends blocks as they come from the file.
func (s *session) read(p *iscsi.PDU, lba uint64, n uint32) error {
	switch all := s.blocks(); {
	case lba > all || uint64(n) > all-lba:
		return s.finish(p, reply{sense: badRange})
	case n > maxTransfer/blockSize:
		return s.finish(p, reply{sense: badField})
	}
	want, off := int64(n)*blockSize, int64(lba)*blockSize
	if p.Header[1]&iscsi.ReadFlag == 0 || uint32(want) != p.Uint32(20) || want <= maxRead {
		// In one piece, with whatever the initiator expects to be different.
		data := make([]byte, min(want, max(int64(p.Uint32(20)), maxRead)))
		if err := s.fill(data, off); err != nil {
			return s.finish(p, reply{sense: unreadable})
		}
		return s.finish(p, reply{data: data})
	}
	buf, sn := make([]byte, maxRead), uint32(0)
	for done := int64(0); done < want; {
		part := buf[:min(maxRead, want-done)]
		if err := s.fill(part, off+done); err != nil {
			return s.finish(p, reply{sense: unreadable})
		}
		if err := s.sendData(p, sn, uint32(done), part, done+int64(len(part)) == want, 0, 0); err != nil {
			return err
		}
		sn += s.pdus(uint32(done), len(part))
		done += int64(len(part))
	}
	return nil
}

// pdus is how many PDUs sendData makes.
func (s *session) pdus(offset uint32, n int) (count uint32) {
	for ; n > 0; count++ {
		step := min(n, s.segment, s.burst-int(offset)%s.burst)
		n, offset = n-step, offset+uint32(step)
	}
	return count
}

// fill reads, with zeros beyond the end of the last block.
func (s *session) fill(b []byte, off int64) error {
	n, err := s.disk.ReadAt(b, off)
	if err == io.EOF && off+int64(n) >= s.disk.Size() {
		clear(b[n:])
		return nil
	}
	if err != nil {
		s.log.Error("an image cannot be read", "at", off, "error", err)
	}
	return err
}
