package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"muster/agent/head"
)

const (
	// wholeEvery is how often all of the status is sent, give or take a quarter:
	// not by all nodes at the same beat.
	wholeEvery = 5 * time.Minute
	// keptBuffer is how large a buffer for reports may stay, in bytes: what
	// follows the first report is small.
	keptBuffer = 16 << 10
)

// Sender takes a report to the head: the JSON of a wire.Status, whose bytes are
// the reporter's again when Send returns. It gives the head's clock as that
// answers, zero when it did not. What the head refused is a *head.Refused,
// with 409 where the head lacks what the report builds on.
type Sender interface {
	Send(ctx context.Context, report []byte) (time.Time, error)
}

// transmission is what the head has of this node.
type transmission struct {
	id       string // of this reporter
	number   uint64 // of reports
	last     uint64 // the report that the head took last; 0 for none
	status   uint64 // the newest change of each table that it has
	hardware uint64
	whole    time.Time // when all of it is due again
	said     string    // of what was logged last
	buf      []byte
}

func newTransmission() transmission { return transmission{id: fmt.Sprintf("%08x", rand.Uint32())} }

func (t *transmission) forget() { t.last, t.status, t.hardware = 0, nothing, nothing }

// send makes a report of what the head does not have and sends it. It says no
// if that should be tried again soon.
func (r *Reporter) send(ctx context.Context, t *transmission) bool {
	whole := t.last == 0 || time.Now().After(t.whole)
	report, status, hardware := r.compose(t, whole)
	began := time.Now()
	now, err := r.Send.Send(ctx, report)
	if t.buf = report; cap(report) > keptBuffer {
		t.buf = nil
	}
	if ctx.Err() != nil {
		return true
	}
	r.compare(now, began)
	if err == nil {
		t.last, t.status, t.hardware, t.said = t.number, status, hardware, ""
		if whole {
			t.whole = time.Now().Add(wholeEvery*3/4 + rand.N(wholeEvery/2))
		}
		return true
	}
	if err.Error() != t.said {
		r.Log.Warn("the head did not take the status", "error", err)
		t.said = err.Error()
	}
	refused := (*head.Refused)(nil)
	if !errors.As(err, &refused) {
		return false
	}
	conflict := refused.Status == http.StatusConflict && t.status != nothing
	t.forget()
	return !conflict // it does not have what it was to keep: send all of it
}

// compose writes the next report, and gives the changes of both tables that
// the head has with it.
func (r *Reporter) compose(t *transmission, whole bool) (report []byte, status, hardware uint64) {
	t.number++
	b := t.name(append(t.buf[:0], `{"report":`...), t.number)
	var others []string
	if whole {
		b, others, status = r.status.whole(append(b, `,"status":`...), t.status)
		b = appendNames(b, `,"keep":`, others)
	} else {
		b = t.name(append(b, `,"since":`...), t.last)
		b, others, status = r.status.since(append(b, `,"status":`...), t.status)
		b = appendNames(b, `,"drop":`, others)
	}
	if hardware = t.hardware; r.hardware.change() > hardware {
		b, _, hardware = r.hardware.whole(append(b, `,"hardware":`...), nothing)
	}
	return append(b, '}'), status, hardware
}

// name writes what a report is called.
func (t *transmission) name(to []byte, number uint64) []byte {
	to = append(append(append(to, '"'), t.id...), '.')
	return append(strconv.AppendUint(to, number, 10), '"')
}

// appendNames writes a list of keys, if there are any.
func appendNames(to []byte, what string, names []string) []byte {
	if len(names) == 0 {
		return to
	}
	list, err := json.Marshal(names)
	if err != nil {
		return to // cannot be: they are texts
	}
	return append(append(to, what...), list...)
}

// compare finds how far this clock is from the head's, whose answer gives whole
// seconds.
func (r *Reporter) compare(head, began time.Time) {
	if head.IsZero() {
		return
	}
	middle := began.Add(time.Since(began) / 2)
	skew := head.Add(500 * time.Millisecond).Sub(middle.Round(0))
	if skew.Abs() < time.Second {
		skew = 0
	}
	r.skew.Store(int64(skew))
}
