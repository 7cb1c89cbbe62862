package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// StreamReport is opened by the agent: after the header comes the body of a
// request to PathStatus as a message, its length before it, and the agent's end
// of the stream. The head answers with a Taken.
const StreamReport = "report"

// Bounds in bytes: of a report, as of the request's body, and of what the head
// says of it.
const (
	MaxReport = 8 << 20
	maxTaken  = 64 << 10
)

// Taken is what the head says of a report.
type Taken struct {
	Status int     `json:"status"` // as HTTP has it; 200: it was taken
	Reason string  `json:"reason,omitempty"`
	Time   float64 `json:"time"` // the head's clock, in seconds since 1970
}

// Clock is the head's, in whole seconds as HTTP gives it.
func (t Taken) Clock() time.Time { return time.Unix(int64(t.Time), 0) }

// ReportStream is all that the agent sends of a report, the JSON of a Status.
func ReportStream(report []byte) ([]byte, error) {
	if len(report) > MaxReport {
		return nil, fmt.Errorf("a report of %d bytes, at most %d are taken", len(report), MaxReport)
	}
	out, err := appendMessage(make([]byte, 0, 64+len(report)), Header{Type: StreamReport}, MaxHeader)
	if err != nil {
		return nil, err
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(report)))
	return append(out, report...), nil
}

// TakenMessage is all that the head sends.
func TakenMessage(t Taken) []byte {
	out, err := appendMessage(make([]byte, 0, 64), t, maxTaken)
	if err != nil { // a reason of that length
		t.Reason = fmt.Sprintf("%.1000s", t.Reason)
		out, _ = appendMessage(nil, t, maxTaken)
	}
	return out
}

// ReadTaken reads that.
func ReadTaken(r io.Reader) (t Taken, err error) {
	raw, err := ReadMessage(r, maxTaken)
	if err == nil {
		err = json.Unmarshal(raw, &t)
	}
	return t, err
}
