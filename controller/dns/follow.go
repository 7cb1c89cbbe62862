package dns

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	"muster/controller/registry"
	"muster/shared/object"
)

// backlog bounds how many changes wait while a batch is being made visible.
const backlog = 4096

// load reads everything that there is.
func (s *Server) load(revision uint64) {
	heads := s.heads()
	st := newSite(s.Objects.Look(), s.Objects.All(object.KindNet), heads, revision)
	zone := s.zone
	old := maps.Clone(zone.by)
	put := func(source string, rank int, records []record) {
		delete(old, source)
		zone.set(source, rank, records)
	}
	put("localhost", rankHead, localhost())
	for name := range st.zones {
		put("zone/"+name, rankHead, []record{{name, nameServer, st.server}})
	}
	for i, h := range heads {
		put(fmt.Sprintf("head/%06d", i), rankHead, headRecords(st, h))
	}
	for _, o := range s.Objects.All(object.KindNode) {
		put(o.Base().UID, rankNode, nodeRecords(st, s.Objects.Look(), o.(*object.Node)))
	}
	for _, o := range s.Objects.All(object.KindHostname) {
		put(o.Base().UID, rankHost, hostRecords(st, o.(*object.Hostname)))
	}
	for source := range old {
		zone.set(source, 0, nil)
	}
	s.publish(st)
}

// heads gives this head, as it is, and all that are registered.
func (s *Server) heads() []Host {
	out := []Host{s.Self()}
	for _, o := range s.Objects.All(object.KindHead) {
		h := o.(*object.Head)
		one := Host{Name: h.Name}
		for _, text := range h.Addresses {
			if a, err := netip.ParseAddr(text); err == nil {
				one.Addrs = append(one.Addrs, a.Unmap())
			}
		}
		if h.Name != "" {
			out = append(out, one)
		}
	}
	return out
}

func (s *Server) publish(st *site) {
	s.zone.commit()
	s.site.Store(st)
}

// follow keeps the zone as the registry is, from a revision on. What came
// together is made visible together.
func (s *Server) follow(ctx context.Context, after uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	changes, failed := make(chan registry.Change, backlog), make(chan error, 1)
	go func() {
		defer close(changes)
		for c, err := range s.Objects.Changes(ctx, after) {
			if err != nil {
				failed <- err
				return
			}
			select {
			case changes <- c:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { // and the reader of the feed has stopped
		cancel()
		for range changes {
		}
	}()
	for c := range changes {
		batch := []registry.Change{c}
		for len(changes) > 0 && len(batch) < backlog {
			if c, ok := <-changes; ok {
				batch = append(batch, c)
			}
		}
		if err := s.take(ctx, batch); err != nil {
			return ended(ctx, err)
		}
	}
	select {
	case err := <-failed:
		return ended(ctx, err)
	default:
		return nil
	}
}

// ended is nil where the end was wanted.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// take makes a batch of changes visible.
func (s *Server) take(ctx context.Context, batch []registry.Change) error {
	revision := batch[len(batch)-1].Revision
	// The view may be a moment behind the feed.
	if err := s.Objects.Wait(ctx, revision); err != nil {
		return err
	}
	st, whole := s.site.Load(), false
	for _, c := range batch {
		switch c.Kind {
		case object.KindNode, object.KindHostname:
			s.one(st, c)
		case object.KindNet, object.KindNamingpool, object.KindHead:
			whole = true // names of many follow from it
		}
	}
	if whole {
		s.load(revision)
	} else {
		s.publish(st.withSerial(revision))
	}
	if s.Published != nil {
		s.Published(revision)
	}
	return nil
}

// one follows the change of one node or host name.
func (s *Server) one(st *site, c registry.Change) {
	switch o := c.New.(type) {
	case *object.Node:
		s.zone.set(c.UID, rankNode, nodeRecords(st, s.Objects.Look(), o))
	case *object.Hostname:
		s.zone.set(c.UID, rankHost, hostRecords(st, o))
	default:
		s.zone.set(c.UID, 0, nil)
	}
}
