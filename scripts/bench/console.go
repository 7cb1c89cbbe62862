package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The consoles: how many, what each says in a second in bytes, and for how long.
const (
	consoles     = 500
	consoleSpeed = 1024
	consoleSpan  = 20 * time.Second
)

// measureConsole has many machines talk on their serial lines all the time, and
// looks at what logging them costs the head.
func measureConsole(ctx context.Context, s settings) (figures []figure, err error) {
	b, err := newBed(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	head := b.head
	l := &load{head: head, network: b.network, clients: 8}
	if err := l.createNodes(ctx, consoles); err != nil {
		return nil, err
	}
	lines, err := serialLines(ctx, l, b.dir)
	if err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	var talking sync.WaitGroup
	for i, line := range lines {
		talking.Go(func() { talk(line, i, stop) })
	}
	before, err := cpuTime(head.PID())
	if err != nil {
		return nil, err
	}
	began := time.Now()
	select {
	case <-ctx.Done():
	case <-time.After(consoleSpan):
	}
	after, err := cpuTime(head.PID())
	took := time.Since(began).Seconds()
	close(stop)
	talking.Wait()
	if err != nil || ctx.Err() != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	f := atMost(fmt.Sprintf("%d consoles logged at %d B/s each", consoles, consoleSpeed), 20, 100*(after-before)/took, "% of a core", "")
	return []figure{f}, head.Stop()
}

// serialLines gives every node a console, and returns the machines' ends once
// the head has opened them all.
func serialLines(ctx context.Context, l *load, dir string) ([]net.Conn, error) {
	c, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.conn.Close()
	ends := make([]net.Conn, len(l.uids))
	for i, uid := range l.uids {
		path := filepath.Join(dir, fmt.Sprintf("%d.serial", i))
		listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		if _, err := c.call("PATCH", "/api/v1/node/"+uid+"/attributes", `{"_console_uri":"qemu://`+path+`"}`); err != nil {
			return nil, err
		}
		if ends[i], err = listener.Accept(); err != nil {
			return nil, err
		}
	}
	return ends, nil
}

// talk says a line of text ten times in a second.
func talk(line net.Conn, number int, stop <-chan struct{}) {
	defer line.Close()
	text := []byte(strings.Repeat("x", consoleSpeed/10-2) + "\r\n")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	time.Sleep(time.Duration(number%100) * time.Millisecond) // not all at once
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if _, err := line.Write(text); err != nil {
				return
			}
		}
	}
}
