package ipmitest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"time"
)

// session is one of a client: RAKP-HMAC-SHA1 to open it, HMAC-SHA1-96 and
// AES-CBC-128 inside (cipher suite 3, IPMI 2.0 §13.28).
type session struct {
	id      uint32 // ours
	console uint32 // the client's
	began   time.Time
	theirs  [16]byte // random numbers
	ours    [16]byte
	role    byte
	user    []byte
	k1, k2  []byte
	active  bool
	seen    uint32 // the last sequence number that came
	sent    uint32
}

// Status codes of opening (§13.24).
const (
	noSession = 0x02
	noUser    = 0x0d
	badCode   = 0x0f
	noCipher  = 0x11
)

const codeSize = 12 // of HMAC-SHA1-96

func sign(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha1.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func le(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

// key is the password as HMAC's key.
func key() []byte { return append([]byte(Password), make([]byte, 20-len(Password))...) }

// name is the role and the user, as RAKP signs them.
func (s *session) name() []byte { return append([]byte{s.role, byte(len(s.user))}, s.user...) }

// open answers an RMCP+ Open Session Request (§13.17).
func (b *BMC) open(p []byte) []byte {
	if len(p) < 32 {
		return nil
	}
	console := binary.LittleEndian.Uint32(p[4:])
	if p[12] != 1 || p[20] != 1 || p[28] != 1 { // not cipher suite 3
		return append([]byte{p[0], noCipher, 0, 0}, le(console)...)
	}
	s := b.newSession()
	s.console = console
	out := append([]byte{p[0], 0, 4, 0}, le(console)...)
	out = append(out, le(s.id)...)
	for kind := range byte(3) {
		out = append(out, kind, 0, 0, 8, 1, 0, 0, 0)
	}
	return out
}

// rakp1 answers RAKP message 1 (§13.20).
func (b *BMC) rakp1(p []byte) []byte {
	if len(p) < 28 || len(p) < 28+int(p[27]) {
		return nil
	}
	s := b.sessions[binary.LittleEndian.Uint32(p[4:])]
	if s == nil {
		return append([]byte{p[0], noSession, 0, 0}, le(0)...)
	}
	copy(s.theirs[:], p[8:24])
	s.role, s.user = p[24], bytes.Clone(p[28:28+int(p[27])])
	if string(s.user) != User {
		delete(b.sessions, s.id)
		return append([]byte{p[0], noUser, 0, 0}, le(s.console)...)
	}
	rand.Read(s.ours[:])
	out := append([]byte{p[0], 0, 0, 0}, le(s.console)...)
	out = append(append(out, s.ours[:]...), b.opt.GUID[:]...)
	return append(out, sign(key(), le(s.console), le(s.id), s.theirs[:], s.ours[:], b.opt.GUID[:], s.name())...)
}

// rakp3 answers RAKP message 3 (§13.22); the session stands then.
func (b *BMC) rakp3(p []byte) []byte {
	if len(p) < 8 {
		return nil
	}
	s := b.sessions[binary.LittleEndian.Uint32(p[4:])]
	if s == nil {
		return append([]byte{p[0], noSession, 0, 0}, le(0)...)
	}
	want := sign(key(), s.ours[:], le(s.console), s.name())
	if p[1] != 0 || !hmac.Equal(p[8:], want) {
		delete(b.sessions, s.id)
		return append([]byte{p[0], badCode, 0, 0}, le(s.console)...)
	}
	sik := sign(key(), s.theirs[:], s.ours[:], s.name())
	s.k1, s.k2 = sign(sik, bytes.Repeat([]byte{1}, 20)), sign(sik, bytes.Repeat([]byte{2}, 20))
	s.active = true
	out := append([]byte{p[0], 0, 0, 0}, le(s.console)...)
	return append(out, sign(sik, s.theirs[:], le(s.id), b.opt.GUID[:])[:codeSize]...)
}

// unseal gives the message of a session's packet: nil where it is not
// authentic, or came before.
func (s *session) unseal(p []byte) []byte {
	if p[1]&0xc0 != 0xc0 || len(p) < plusHeader+codeSize {
		return nil
	}
	signed, code := p[:len(p)-codeSize], p[len(p)-codeSize:]
	sequence := binary.LittleEndian.Uint32(p[6:])
	if !hmac.Equal(sign(s.k1, signed)[:codeSize], code) || sequence <= s.seen {
		return nil
	}
	s.seen = sequence
	length := int(binary.LittleEndian.Uint16(p[10:]))
	body := bytes.Clone(p[plusHeader : plusHeader+length])
	if length < 2*aes.BlockSize || length%aes.BlockSize != 0 {
		return nil
	}
	iv, text := body[:aes.BlockSize], body[aes.BlockSize:]
	cipher.NewCBCDecrypter(s.block(), iv).CryptBlocks(text, text)
	pad := int(text[len(text)-1])
	if pad+1 > len(text) {
		return nil
	}
	return text[:len(text)-pad-1]
}

// seal makes a message a packet of the session.
func (s *session) seal(message []byte) []byte {
	iv := make([]byte, aes.BlockSize)
	rand.Read(iv)
	text := bytes.Clone(message)
	for i := byte(1); (len(text)+1)%aes.BlockSize != 0; i++ {
		text = append(text, i)
	}
	text = append(text, byte(len(text)-len(message)))
	cipher.NewCBCEncrypter(s.block(), iv).CryptBlocks(text, text)
	s.sent++
	return packet(0xc0, s.console, s.sent, append(iv, text...), func(p []byte) []byte {
		pad := (4 - (len(p)+2)%4) % 4
		trailer := append(bytes.Repeat([]byte{0xff}, pad), byte(pad), 0x07)
		return append(trailer, sign(s.k1, p, trailer)[:codeSize]...)
	})
}

func (s *session) block() cipher.Block {
	block, err := aes.NewCipher(s.k2[:aes.BlockSize])
	if err != nil {
		panic(err) // of a key of another size
	}
	return block
}
