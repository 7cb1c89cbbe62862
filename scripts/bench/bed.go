package main

import (
	"context"
	"errors"
	"os"

	"muster/scripts/lab"
)

// bed is a head that serves no boots, in a network of its own.
type bed struct {
	network *lab.Network
	head    *lab.Head
	dir     string // goes with it
}

// newBed starts one. close must be called.
func newBed(ctx context.Context, s settings, args ...string) (*bed, error) {
	network, err := lab.NewNetwork(ctx, s.log)
	if err != nil {
		return nil, err
	}
	b := &bed{network: network}
	if b.dir, err = os.MkdirTemp("", "muster-bench-"); err == nil {
		b.head = network.NewHead(s.program, b.dir, args...)
		err = b.head.Start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// close ends the network with all that runs there, the head last of all.
func (b *bed) close() error {
	err := b.network.Close()
	if b.dir != "" {
		err = errors.Join(err, os.RemoveAll(b.dir))
	}
	return err
}
