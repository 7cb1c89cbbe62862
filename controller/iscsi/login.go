package iscsi

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"muster/shared/iscsi"
)

// The stages of a login, and its results as class and detail.
const (
	stageSecurity, stageOperational, stageFull = 0, 1, 3

	loginOK          = 0x0000
	loginBadRequest  = 0x0200
	loginAuth        = 0x0201
	loginNotFound    = 0x0203
	loginMissing     = 0x0207
	loginSessionType = 0x0209
)

// The limits that are agreed on, in bytes.
const (
	maxReceive = 64 << 10 // of a PDU to the target
	maxSegment = 256 << 10
	maxBurst   = 1 << 20
	leastText  = 512 // RFC 7143, 13.12: no receiver takes less
)

// login goes through the login phase. Afterwards the session has its disk, or
// is one for discovery.
func (s *session) login() error {
	var text []byte
	for range 16 { // no login takes so many turns
		p, err := iscsi.Read(s.conn, maxReceive)
		if err != nil {
			return err
		}
		if p.Opcode() != iscsi.OpLogin {
			return errors.New("it does not log in first")
		}
		if text = append(text, p.Data...); len(text) > iscsi.MaxText {
			return s.refuse(p, loginBadRequest, "its login is too long")
		}
		s.expCmdSN = p.Uint32(24)
		if p.Header[1]&iscsi.Continue != 0 {
			if err := s.loginAnswer(p, 0, nil, loginOK); err != nil {
				return err
			}
			continue
		}
		stage, next, transit := p.Header[1]>>2&3, p.Header[1]&3, p.Header[1]&iscsi.Final != 0
		pairs, err := iscsi.ParseText(text)
		if err != nil {
			return s.refuse(p, loginBadRequest, err.Error())
		}
		text = nil
		if stage == stageFull || stage == 2 || transit && (next == 2 || next <= stage) {
			return s.refuse(p, loginBadRequest, "its stages make no sense")
		}
		answer, status, why := s.agree(pairs)
		if status != loginOK {
			return s.refuse(p, status, why)
		}
		flags := stage << 2
		if transit {
			flags |= iscsi.Final | next
		}
		if err := s.loginAnswer(p, flags, answer, loginOK); err != nil {
			return err
		}
		if transit && next == stageFull {
			return nil
		}
	}
	return errors.New("its login does not come to an end")
}

func (s *session) refuse(p *iscsi.PDU, status int, why string) error {
	s.loginAnswer(p, 0, nil, status)
	return fmt.Errorf("login refused: %s", why)
}

func (s *session) loginAnswer(p *iscsi.PDU, flags byte, pairs []iscsi.Pair, status int) error {
	var a iscsi.PDU
	a.Header[0], a.Header[1] = iscsi.OpLoginDone, flags
	copy(a.Header[8:14], p.Header[8:14]) // ISID
	if copy(a.Header[14:16], p.Header[14:16]); flags&iscsi.Final != 0 && flags&3 == stageFull {
		a.Header[15] = 1 // there is one session to a connection, which its TCP ports name
	}
	a.Put32(16, p.Tag())
	a.Header[36], a.Header[37] = byte(status>>8), byte(status)
	a.Data = iscsi.Text(pairs)
	return s.send(&a)
}

// agree answers the keys of one turn.
func (s *session) agree(pairs []iscsi.Pair) (answer []iscsi.Pair, status int, why string) {
	if !s.named {
		if status, why = s.who(pairs); status != loginOK {
			return nil, status, why
		}
		s.named = true
		if !s.discovery {
			answer = append(answer, iscsi.Pair{Key: "TargetPortalGroupTag", Value: "1"})
		}
	}
	for _, p := range pairs {
		value, ok := s.key(p)
		if !ok {
			return nil, loginAuth, p.Key + "=" + p.Value + " cannot be agreed on"
		}
		if value != "" {
			answer = append(answer, iscsi.Pair{Key: p.Key, Value: value})
		}
		if p.Key == "MaxRecvDataSegmentLength" {
			answer = append(answer, iscsi.Pair{Key: p.Key, Value: strconv.Itoa(maxReceive)})
		}
	}
	return answer, loginOK, ""
}

// who finds out what the session is about, by the keys of its first turn.
func (s *session) who(pairs []iscsi.Pair) (status int, why string) {
	if iscsi.Value(pairs, "InitiatorName") == "" {
		return loginMissing, "it names no initiator"
	}
	switch kind := iscsi.Value(pairs, "SessionType"); kind {
	case "Discovery":
		s.discovery = true
		return loginOK, ""
	case "", "Normal":
	default:
		return loginSessionType, "sessions of type " + kind + " are not known"
	}
	name := iscsi.Value(pairs, "TargetName")
	if name == "" {
		return loginMissing, "it names no target"
	}
	disk, err := s.target.Disks.Open(s.from, name)
	if err != nil {
		s.log.Warn("an iSCSI login is refused", "target", name, "error", err)
		return loginNotFound, err.Error()
	}
	s.disk, s.release = disk, s.target.hold(disk.Serial())
	return loginOK, ""
}

// key gives the answer to one key, "" for one that is only told.
func (s *session) key(p iscsi.Pair) (value string, ok bool) {
	switch p.Key {
	case "InitiatorName", "InitiatorAlias", "SessionType", "TargetName":
		return "", true
	case "AuthMethod", "HeaderDigest", "DataDigest":
		return "None", slices.Contains(strings.Split(p.Value, ","), "None")
	case "MaxRecvDataSegmentLength":
		n, err := strconv.Atoi(p.Value)
		if s.segment = min(n, maxSegment); err != nil || n < leastText {
			return "", false
		}
		return "", true
	case "MaxBurstLength":
		n, err := strconv.Atoi(p.Value)
		if s.burst = min(n, maxBurst); err != nil || n < leastText {
			return "", false
		}
		return strconv.Itoa(s.burst), true
	case "FirstBurstLength": // of writing
		n, err := strconv.Atoi(p.Value)
		return strconv.Itoa(min(n, maxReceive)), err == nil && n >= leastText
	case "DefaultTime2Wait":
		return p.Value, true
	case "DefaultTime2Retain", "ErrorRecoveryLevel":
		return "0", true
	case "MaxConnections", "MaxOutstandingR2T":
		return "1", true
	case "InitialR2T", "DataPDUInOrder", "DataSequenceInOrder":
		return "Yes", true
	case "ImmediateData", "IFMarker", "OFMarker":
		return "No", true
	}
	return "NotUnderstood", true
}
