package exec

import (
	"io"
	"net/http"
	"time"

	"muster/shared/wire"
)

// When a command has ended that did not read all its input: how long the client
// may pause in sending the rest of it, and how long that is taken.
const (
	restPause = 200 * time.Millisecond
	restTime  = 5 * time.Second
)

// openInput lets output come before all input was read. The connection is of no
// use afterwards, which the client has to know: the rest of an input that the
// command did not read would be in the way of its next request.
func openInput(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 { // HTTP/2 has streams for both
		http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Connection", "close")
	}
}

// dismiss takes what comes of an input for which there is no command any more,
// until its end or a pause. A connection that is closed with something unread
// is reset, and the client might not get the end of its answer. fed tells that
// nobody else reads it.
func dismiss(w http.ResponseWriter, r *http.Request, fed <-chan struct{}) {
	rc := http.NewResponseController(w)
	buf := make([]byte, wire.MaxFrame)
	for end := time.Now().Add(restTime); r.ProtoMajor == 1 && time.Now().Before(end); {
		if rc.SetReadDeadline(time.Now().Add(restPause)) != nil {
			return
		}
		<-fed
		if _, err := r.Body.Read(buf); err != nil {
			return
		}
	}
}

// feed sends the input as it comes, and its end. An input that breaks off ends
// the command: half of it must not pass for all.
func feed(stream io.WriteCloser, stdin io.Reader) {
	buf := make([]byte, wire.MaxFrame)
	for {
		n, err := stdin.Read(buf)
		if n > 0 && wire.WriteFrame(stream, wire.FrameStdin, buf[:n]) != nil {
			return // the stream is gone, which the reading side reports
		}
		if err == io.EOF {
			wire.WriteFrame(stream, wire.FrameStdin, nil)
			return
		}
		if err != nil {
			stream.Close()
			return
		}
	}
}
