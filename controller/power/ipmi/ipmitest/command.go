package ipmitest

import (
	"time"
)

// Completion codes.
const (
	done           = 0x00
	invalidCommand = 0xc1
)

// command answers an IPMI message (§13.8), in a session or, where that is nil,
// what may be asked without.
func (b *BMC) command(s *session, m []byte) ([]byte, time.Duration) {
	if len(m) < 7 {
		return nil, 0
	}
	function, data := m[1]>>2, m[6:len(m)-1]
	code, out, wait := byte(invalidCommand), []byte(nil), time.Duration(0)
	switch {
	case function == 0x06:
		code, out = b.application(s, m[5], data)
	case function == 0x00 && s != nil:
		code, out = b.chassis(m[5], data)
		wait = b.opt.Slow
	}
	answer := []byte{m[3], (function|1)<<2 | m[4]&3, 0, m[0], m[4], m[5], code}
	answer[2] = checksum(answer[:2])
	answer = append(answer, out...)
	return append(answer, checksum(answer[3:])), wait
}

func checksum(p []byte) byte {
	var sum byte
	for _, c := range p {
		sum += c
	}
	return -sum
}

// application are the commands about the BMC and its sessions (§20, §22).
func (b *BMC) application(s *session, command byte, data []byte) (code byte, out []byte) {
	switch command {
	case 0x38: // channel authentication capabilities: of 2.0 only
		return done, []byte{1, 0x80, 0x04, 0x02, 0, 0, 0, 0}
	case 0x54: // cipher suites, of which there is one record
		if len(data) < 3 || data[2]&0x3f != 0 {
			return done, []byte{1}
		}
		return done, []byte{1, 0xc0, 3, 0x01, 0x41, 0x81}
	case 0x37: // system GUID
		return done, b.opt.GUID[:]
	}
	if s == nil {
		return invalidCommand, nil
	}
	switch command {
	case 0x01: // device ID
		return done, []byte{0x20, 0x01, 0x02, 0x15, 0x02, 0x81, 0x91, 0x12, 0x00, 0x02, 0x0f}
	case 0x3b:
		return done, []byte{4}
	case 0x3c:
		delete(b.sessions, s.id)
		return done, nil
	case 0x02, 0x03: // cold and warm reset
		return done, nil
	}
	return invalidCommand, nil
}

// chassis are the commands about the machine (§28).
func (b *BMC) chassis(command byte, data []byte) (code byte, out []byte) {
	switch command {
	case 0x01:
		state := byte(0)
		if b.on || b.opt.Stuck {
			state = 1
		}
		return done, []byte{state, 0, 0, 0}
	case 0x02:
		if len(data) < 1 {
			return 0xc7, nil
		}
		b.orders = append(b.orders, data[0]&0x0f)
		switch data[0] & 0x0f {
		case 0, 5:
			b.on = false
		case 1, 2, 3:
			b.on = true
		}
		return done, nil
	case 0x04, 0x08: // identify, boot options
		return done, nil
	}
	return invalidCommand, nil
}
