package peer

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"muster/agent/head"
)

// Fellows are the other nodes, and what this one gives them.
type Fellows struct {
	Group  *Group
	Server *Server
	parts  sync.WaitGroup
	stop   context.CancelFunc
}

// Join gives from a shelf and asks the head, again and again, for others. Leave
// must be called.
func Join(ctx context.Context, client *head.Client, shelf Shelf, d head.Dialer, log *slog.Logger) (*Fellows, error) {
	f := &Fellows{}
	var err error
	if f.Server, err = Listen(d.Bind, shelf, log); err != nil {
		return nil, err
	}
	f.Group = NewGroup(client, f.Server, log)
	ctx, f.stop = context.WithCancel(ctx)
	f.parts.Go(func() { f.Group.Run(ctx) })
	f.parts.Go(func() { f.Server.Run(ctx) })
	return f, nil
}

// Leave stops, after at most a while in which others still miss something that
// only this node may have.
func (f *Fellows) Leave(ctx context.Context, atMost time.Duration) {
	defer f.parts.Wait()
	defer f.stop()
	end := time.Now().Add(atMost)
	for ctx.Err() == nil && f.Server.Watched() && time.Now().Before(end) {
		time.Sleep(20 * time.Millisecond)
	}
}
