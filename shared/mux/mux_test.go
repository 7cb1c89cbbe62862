package mux

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
)

// pair gives both ends of a TCP connection.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// echo gives back what comes, and ends when that does.
func echo(s net.Conn) {
	io.Copy(s, s)
	s.Close()
}

// sessions are two ends; the far one does what handle says.
func sessions(t testing.TB, c Config, handle func(*Stream)) (near, far *Session) {
	a, b := pair(t)
	near, far = New(c).Client(a), New(c).Server(b)
	go near.Serve(func(st *Stream) { go echo(st) })
	go far.Serve(handle)
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// roundTrip sends data through an echo and wants them back.
func roundTrip(t *testing.T, s interface {
	net.Conn
}, size int, end func()) {
	t.Helper()
	data := make([]byte, size)
	rand.Read(data)
	go func() { s.Write(data); end() }()
	got := make([]byte, size)
	if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes: they come back otherwise (%v)", size, err)
	}
}

func TestEcho(t *testing.T) {
	near, far := sessions(t, Config{}, func(st *Stream) { go echo(st) })
	var all sync.WaitGroup
	for _, s := range []*Session{near, far} {
		for _, size := range []int{1, maxBody, Window, 5*Window + 1} {
			all.Go(func() {
				st, err := s.Open()
				if err != nil {
					t.Error(err)
					return
				}
				roundTrip(t, st, size, func() { st.Finish(nil) })
				if n, err := st.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("after the end: %d, %v", n, err)
				}
				st.Close()
			})
		}
	}
	all.Wait()
	for _, s := range []*Session{near, far} {
		waitNone(t, s)
	}
}

// waitNone waits until a session has no streams.
func waitNone(t *testing.T, s *Session) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n, theirs := len(s.streams), s.theirs
		s.mu.Unlock()
		if n == 0 && theirs == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d streams are left, %d of the peer's", n, theirs)
		}
	}
}

// The other end may be any that speaks yamux, whichever side opens.
func TestYamux(t *testing.T) {
	for _, client := range []bool{true, false} {
		a, b := pair(t)
		conf := yamux.DefaultConfig()
		conf.LogOutput = io.Discard
		var ours *Session
		var theirs *yamux.Session
		var err error
		if client {
			ours = New(Config{}).Client(a)
			theirs, err = yamux.Server(b, conf)
		} else {
			ours = New(Config{}).Server(a)
			theirs, err = yamux.Client(b, conf)
		}
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- ours.Serve(func(st *Stream) { go echo(st) }) }()
		go func() {
			for {
				s, err := theirs.Accept()
				if err != nil {
					return
				}
				go echo(s)
			}
		}()
		var all sync.WaitGroup
		for _, size := range []int{1, 1000, Window, 3*Window + 5} {
			all.Go(func() {
				st, err := ours.Open()
				if err != nil {
					t.Error(err)
					return
				}
				defer st.Close()
				roundTrip(t, st, size, func() { st.Finish(nil) })
			})
			all.Go(func() {
				st, err := theirs.Open()
				if err != nil {
					t.Error(err)
					return
				}
				defer st.Close()
				roundTrip(t, st, size, func() {})
			})
		}
		all.Wait()
		if _, err := theirs.Ping(); err != nil {
			t.Error("they ping:", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := ours.Ping(ctx); err != nil {
			t.Error("we ping:", err)
		}
		cancel()
		waitNone(t, ours)
		theirs.Close()
		if err := <-ended; err == nil {
			t.Error("nobody said why the session ended")
		}
	}
}

// One that nobody reads is held at its window and holds up no other.
func TestFlowControl(t *testing.T) {
	taken := make(chan *Stream, 2)
	count := 0
	near, _ := sessions(t, Config{}, func(st *Stream) {
		if count++; count > cap(taken) {
			go echo(st)
			return
		}
		taken <- st
	})
	var floods []*Stream
	var ends []chan int
	for range 2 {
		flood, err := near.Open()
		if err != nil {
			t.Fatal(err)
		}
		end := make(chan int, 1)
		go func() {
			sum := 0
			for {
				n, err := flood.Write(make([]byte, 100_000))
				if sum += n; err != nil {
					end <- sum
					return
				}
			}
		}()
		floods, ends = append(floods, flood), append(ends, end)
	}
	for range 2 {
		full := <-taken
		for buffered := 0; buffered < Window; {
			full.mu.Lock()
			for full.in.Len() < Window {
				full.changed.Wait()
			}
			buffered = full.in.Len()
			full.mu.Unlock()
		}
	}
	st, err := near.Open()
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, st, 4*Window, func() {})
	st.Close()
	for i, flood := range floods {
		flood.Close() // frees who waits for its window
		if sum := <-ends[i]; sum != Window {
			t.Errorf("%d bytes were sent to who reads none, not %d", sum, Window)
		}
	}
}

// Who closes a stream is freed, and who goes on writing to it told.
func TestClose(t *testing.T) {
	taken := make(chan *Stream, 1)
	near, far := sessions(t, Config{CloseTime: 20 * time.Millisecond}, func(st *Stream) { taken <- st })
	st, err := near.Open()
	if err != nil {
		t.Fatal(err)
	}
	st.Write([]byte("x"))
	other := <-taken
	reading := make(chan error, 1)
	go func() { _, err := st.Read(make([]byte, 1)); reading <- err }()
	st.Close()
	if err := <-reading; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a reader of what was closed gets %v", err)
	}
	if _, err := st.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a writer of what was closed gets %v", err)
	}
	if data, err := io.ReadAll(other); string(data) != "x" || err != nil {
		t.Errorf("the other end read %q, %v", data, err)
	}
	for { // until it is told
		if _, err := other.Write([]byte("y")); err != nil {
			break
		}
	}
	waitNone(t, near)
	other.Close() // until then it counts
	waitNone(t, far)

	// A peer that leaves its end open is given up.
	st, _ = near.Open()
	st.Write([]byte("x"))
	other = <-taken
	st.Close()
	waitNone(t, near)
	io.ReadAll(other)
	other.Close()
	waitNone(t, far)

	// One that was never written to is nobody's business.
	st, _ = near.Open()
	st.Close()
	waitNone(t, near)
}

func TestDeadlines(t *testing.T) {
	near, _ := sessions(t, Config{}, func(*Stream) {})
	st, err := near.Open()
	if err != nil {
		t.Fatal(err)
	}
	st.SetDeadline(time.Now().Add(5 * time.Millisecond))
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading: %v", err)
	}
	if n, err := st.Write(make([]byte, 2*Window)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("writing: %d, %v", n, err)
	}
	st.SetDeadline(time.Time{})
	if n, err := st.Write(make([]byte, Window)); err != nil || n != Window {
		t.Errorf("after that: %d, %v", n, err)
	}
}

// A peer that opens more than it may is refused what is too much.
func TestTooMany(t *testing.T) {
	near, far := sessions(t, Config{Streams: 2}, func(st *Stream) { go echo(st) })
	var open []*Stream
	for range 2 {
		st, err := near.Open()
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, st, 10, func() {})
		open = append(open, st)
	}
	st, _ := near.Open()
	st.Write([]byte("x"))
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, errReset) {
		t.Errorf("one too many: %v", err)
	}
	for _, st := range open {
		st.Close()
	}
	waitNone(t, far)
	st, _ = near.Open()
	roundTrip(t, st, 10, func() {})
	st.Close()
}

// A peer that drops streams as soon as it has opened them keeps no more
// handlers busy than one that does not.
func TestDropped(t *testing.T) {
	handed, release := make(chan *Stream, 100), make(chan struct{})
	near, far := sessions(t, Config{Streams: 2}, func(st *Stream) {
		handed <- st
		go func() { <-release; st.Close() }()
	})
	open := func() {
		st, err := near.Open()
		if err != nil {
			t.Fatal(err)
		}
		st.Write([]byte("x"))
		st.session.write(header{kindWindow, flagRST, st.id, 0}, nil)
		st.Close()
	}
	for range 5 {
		open()
	}
	if err := near.Ping(t.Context()); err != nil { // they have been read
		t.Fatal(err)
	}
	if len(handed) != 2 {
		t.Errorf("%d handlers run at once, at most 2 may", len(handed))
	}
	close(release)
	for range 2 {
		<-handed
	}
	waitNone(t, far)
	st, _ := near.Open()
	st.Write([]byte("x"))
	<-handed
}

// What breaks off ends everything that waits for it.
func TestBreak(t *testing.T) {
	a, b := pair(t)
	near := New(Config{}).Client(a)
	served := make(chan error, 1)
	go func() { served <- near.Serve(func(*Stream) {}) }()
	st, _ := near.Open()
	reading := make(chan error, 1)
	go func() { _, err := st.Read(make([]byte, 1)); reading <- err }()
	pinged := make(chan error, 1)
	go func() { pinged <- near.Ping(context.Background()) }()
	b.Close()
	for _, c := range []chan error{served, reading, pinged} {
		if err := <-c; err == nil {
			t.Error("it ended without a reason")
		}
	}
	if _, err := near.Open(); err == nil {
		t.Error("a stream was opened in what has ended")
	}
	if _, err := st.Write([]byte("x")); err == nil {
		t.Error("a stream was written to that has ended")
	}
}

// FuzzSession feeds a session with bytes of a hostile peer.
func FuzzSession(f *testing.F) {
	frame := func(h header, body string) string { return string(h.append(nil)) + body }
	f.Add([]byte(frame(header{kindData, flagSYN | flagFIN, 1, 5}, "hello")))
	f.Add([]byte(frame(header{kindWindow, flagSYN, 1, 0}, "") + frame(header{kindData, 0, 1, 3}, "abc") + frame(header{kindWindow, flagRST, 1, 0}, "")))
	f.Add([]byte(frame(header{kindData, flagSYN, 1, 1<<32 - 1}, "")))
	f.Add([]byte(frame(header{kindWindow, flagSYN, 1, 1<<32 - 1}, "")))
	f.Add([]byte(frame(header{kindPing, flagSYN, 0, 7}, "") + frame(header{kindPing, flagACK, 0, 7}, "") + frame(header{kindAway, 0, 0, 1}, "")))
	f.Add([]byte(frame(header{kindData, flagSYN, 1, 1}, "a") + frame(header{kindData, flagSYN, 1, 1}, "a")))
	f.Add([]byte(frame(header{kindData, flagSYN, 2, 1}, "a")))
	f.Add([]byte(frame(header{kindData, flagFIN, 1, 0}, "") + frame(header{kindData, 0, 1, 1}, "a")))
	f.Add([]byte("\x07nonsense"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, hostile := net.Pipe()
		go io.Copy(io.Discard, hostile)
		go func() {
			hostile.SetWriteDeadline(time.Now().Add(time.Second))
			hostile.Write(data)
			hostile.Close()
		}()
		s := New(Config{Streams: 4}).Server(ours)
		var all sync.WaitGroup
		sum := int64(0)
		var mu sync.Mutex
		s.Serve(func(st *Stream) {
			all.Go(func() {
				n, _ := io.Copy(st, st)
				st.Close()
				mu.Lock()
				defer mu.Unlock()
				sum += n
			})
		})
		all.Wait()
		if sum > int64(len(data)) {
			t.Errorf("%d bytes came out of %d", sum, len(data))
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.streams) != 0 {
			t.Errorf("%d streams outlive the session", len(s.streams))
		}
	})
}
