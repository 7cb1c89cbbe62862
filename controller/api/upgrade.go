package api

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
)

// ReadFrom keeps sendfile within reach of http.ServeContent.
func (w *sentWriter) ReadFrom(r io.Reader) (int64, error) {
	w.sent = true
	if rf, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{w.ResponseWriter}, r)
}

// Hijack hands the connection over, for websockets.
func (w *sentWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := w.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errors.New("this connection cannot be upgraded: use HTTP/1.1")
	}
	conn, rw, err := h.Hijack()
	if err == nil {
		w.hijacked = true
	}
	return conn, rw, err
}

// Flush sends what is buffered, for answers that come bit by bit.
func (w *sentWriter) Flush() {
	w.sent = true
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}
