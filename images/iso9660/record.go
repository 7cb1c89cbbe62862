package iso9660

import (
	"encoding/binary"
	"strings"
	"time"
	"unicode/utf16"
)

// The flags of a directory record.
const (
	flagDir        = 1 << 1
	flagAssociated = 1 << 2 // belongs to another file of the same name
	flagMore       = 1 << 7 // the file goes on in the next record
)

// record is a directory record (ECMA-119, section 9.1).
type record struct {
	location   uint32 // block
	attributes uint8  // blocks before the data
	size       int64
	time       time.Time
	flags      uint8
	interleave bool
	name       []byte
	use        []byte // the system use field
}

func (r *record) dir() bool { return r.flags&flagDir != 0 }

const recordHead = 33 // bytes before the name

// parseRecord reads the record that b is; b is as long as its first byte says.
func parseRecord(b []byte) (record, error) {
	if len(b) < recordHead || recordHead+int(b[32]) > len(b) {
		return record{}, damaged("a directory record of %d bytes is too short", len(b))
	}
	rec := record{
		attributes: b[1],
		location:   binary.LittleEndian.Uint32(b[2:]),
		size:       int64(binary.LittleEndian.Uint32(b[10:])),
		time:       recordTime(b[18:25]),
		flags:      b[25],
		interleave: b[26] != 0 || b[27] != 0,
		name:       b[recordHead : recordHead+int(b[32])],
	}
	rest := recordHead + int(b[32])
	rest += rest & 1 // padded to an even length
	if rest < len(b) {
		rec.use = b[rest:]
	}
	return rec, nil
}

// recordTime reads the seven bytes of a record's time; zero where they make none.
func recordTime(b []byte) time.Time {
	if b[1] < 1 || b[1] > 12 || b[2] < 1 || b[2] > 31 || b[3] > 23 || b[4] > 59 || b[5] > 60 {
		return time.Time{}
	}
	zone := time.FixedZone("", int(int8(b[6]))*15*60)
	return time.Date(1900+int(b[0]), time.Month(b[1]), int(b[2]), int(b[3]), int(b[4]), int(b[5]), 0, zone).UTC()
}

// special says whether the record stands for the directory itself or its parent.
func (r *record) special() bool {
	return len(r.name) == 1 && r.name[0] <= 1
}

// plainName gives a record's name without Rock Ridge: "" where it has none
// that could stand in a path.
func (i *Image) plainName(r *record) string {
	var name string
	if i.naming == joliet {
		units := make([]uint16, len(r.name)/2)
		for n := range units {
			units[n] = binary.BigEndian.Uint16(r.name[2*n:])
		}
		name = string(utf16.Decode(units))
	} else {
		name = strings.ToLower(string(r.name))
	}
	if !r.dir() {
		if base, version, ok := strings.Cut(name, ";"); ok && strings.Trim(version, "0123456789") == "" {
			name = base
		}
		if i.naming == plain {
			name = strings.TrimSuffix(name, ".")
		}
	}
	return name
}

// usable says whether a name can stand in a path.
func usable(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}
