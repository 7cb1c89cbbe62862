package tftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"muster/controller/boot"
)

// Operations of RFC 1350 and RFC 2347.
const (
	opRead  = 1
	opWrite = 2
	opData  = 3
	opAck   = 4
	opError = 5
	opOACK  = 6
)

// Error codes of RFC 1350 and RFC 2347.
const (
	codeOther    = 0
	codeNotFound = 1
	codeAccess   = 2
	codeIllegal  = 4
	codeOption   = 8
)

// Bounds on what a client may choose.
const (
	minBlock     = 8    // bytes, RFC 2348
	defaultBlock = 512  // bytes, RFC 1350
	maxBlock     = 1468 // bytes: with headers an Ethernet frame; ROMs drop fragments
	maxWindow    = 64   // blocks, RFC 7440
	maxRequest   = 512  // bytes, RFC 2347
)

// request is a read request with the options that were understood. Fields are
// what will be used; answer is the OACK's list, in the client's order.
type request struct {
	file    string
	block   int
	window  int
	timeout time.Duration
	size    bool // the client asked for the file's size
	answer  []string
}

// problem is a refusal that the client is told.
type problem struct {
	code uint16
	text string
}

func (p *problem) Error() string { return p.text }

// errNoRequest is for packets that do not deserve even an error in return: to
// answer an error or an ACK with an error could make two servers talk forever.
var errNoRequest = errors.New("not a request")

// errGaveUp is the client's own error packet. As the answer to an OACK it is no
// failure: PXE ROMs ask for the size first, and then again for the file.
var errGaveUp = errors.New("the client gave up")

// parse reads a packet that came to the server's port.
func parse(b []byte) (*request, error) {
	if len(b) < 2 {
		return nil, errNoRequest
	}
	switch binary.BigEndian.Uint16(b) {
	case opRead:
	case opWrite:
		return nil, &problem{codeAccess, "this server is read-only"}
	default:
		return nil, errNoRequest
	}
	if len(b) > maxRequest || b[len(b)-1] != 0 {
		return nil, &problem{codeIllegal, "malformed read request"}
	}
	words := strings.Split(string(b[2:len(b)-1]), "\x00")
	if len(words) < 2 || len(words)%2 != 0 {
		return nil, &problem{codeIllegal, "malformed read request"}
	}
	if mode := strings.ToLower(words[1]); mode != "octet" {
		return nil, &problem{codeIllegal, "only mode octet is served"}
	}
	// Some ROMs put a root directory before the name they were given.
	r := &request{file: strings.TrimPrefix(words[0], "/"), block: defaultBlock, window: 1, timeout: defaultTimeout}
	seen := map[string]bool{}
	for i := 2; i < len(words); i += 2 {
		name := strings.ToLower(words[i])
		if seen[name] {
			return nil, &problem{codeOption, "option " + strconv.Quote(name) + " given twice"}
		}
		seen[name] = true
		r.option(name, words[i+1])
	}
	return r, nil
}

// option takes an option over if it is known and makes sense; others are left
// out of the OACK, which means refused (RFC 2347).
func (r *request) option(name, value string) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return
	}
	switch {
	case name == "blksize" && n >= minBlock && n <= 65464:
		r.block = min(n, maxBlock)
		n = r.block
	case name == "windowsize" && n >= 1 && n <= 65535:
		r.window = min(n, maxWindow)
		n = r.window
	case name == "timeout" && n >= 1 && n <= 255:
		// Accepting means using it; ten seconds is as long as we care to wait.
		if n > 10 {
			return
		}
		r.timeout = time.Duration(n) * time.Second
	case name == "tsize":
		r.size = true // the value is filled in when the file is open
	default:
		return
	}
	r.answer = append(r.answer, name, strconv.Itoa(n))
}

// oack is the option acknowledgement, nil when no option was taken over.
func (r *request) oack(size int64) []byte {
	if len(r.answer) == 0 {
		return nil
	}
	b := binary.BigEndian.AppendUint16(nil, opOACK)
	for i := 0; i < len(r.answer); i += 2 {
		value := r.answer[i+1]
		if r.answer[i] == "tsize" {
			value = strconv.FormatInt(size, 10)
		}
		b = append(append(b, r.answer[i]...), 0)
		b = append(append(b, value...), 0)
	}
	return b
}

// refusal is the error packet for err; nil when the client is to hear nothing.
func refusal(err error) []byte {
	var p *problem
	code, text := uint16(codeOther), err.Error()
	switch {
	case errors.Is(err, errNoRequest):
		return nil
	case errors.As(err, &p):
		code = p.code
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, boot.ErrNotServed):
		code = codeNotFound
	}
	b := binary.BigEndian.AppendUint16(nil, opError)
	b = binary.BigEndian.AppendUint16(b, code)
	return append(append(b, text...), 0)
}

// ackOf gives the block number of an ACK, or the reason why the peer gave up.
func ackOf(b []byte) (block uint16, isAck bool, err error) {
	if len(b) < 4 {
		return 0, false, nil
	}
	switch binary.BigEndian.Uint16(b) {
	case opAck:
		return binary.BigEndian.Uint16(b[2:]), true, nil
	case opError:
		text, _, _ := strings.Cut(string(b[4:min(len(b), 132)]), "\x00")
		return 0, false, fmt.Errorf("%w: error %d %q", errGaveUp, binary.BigEndian.Uint16(b[2:]), text)
	}
	return 0, false, nil
}
