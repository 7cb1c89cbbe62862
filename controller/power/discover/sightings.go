package discover

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"muster/controller/power/bmc"
)

// Sighting is a request for an address by what looks like a BMC. All of it is
// what a stranger says.
type Sighting struct {
	MAC      string
	Addr     netip.Addr // that it has or wants; not valid for none
	Vendor   string     // DHCP's vendor class
	Hostname string
	Switch   []byte // who passed the request on, and from which port (RFC 3046)
	Port     []byte
}

// sightings are the last of each MAC, for a day.
type sightings struct {
	mu  sync.Mutex
	all map[string]sighted
}

type sighted struct {
	Sighting
	at time.Time
}

// maxSightings bounds how many are remembered; the oldest go first.
const (
	maxSightings = 1024
	sightTime    = 24 * time.Hour
)

// Seen remembers a request.
func (d *Discover) Seen(s Sighting) { d.seen.add(s, time.Now()) }

func (s *sightings) add(new Sighting, now time.Time) {
	new.Vendor, new.Hostname = bmc.Clean(new.Vendor), bmc.Clean(new.Hostname)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[string]sighted{}
	}
	if was, known := s.all[new.MAC]; known && !new.Addr.IsValid() {
		new.Addr = was.Addr
	} else if !known && len(s.all) >= maxSightings {
		oldest := ""
		for mac, x := range s.all {
			if oldest == "" || x.at.Before(s.all[oldest].at) {
				oldest = mac
			}
		}
		delete(s.all, oldest)
	}
	s.all[new.MAC] = sighted{new, now}
}

func (s *sightings) list(now time.Time) []Sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Sighting
	for mac, x := range s.all {
		if now.Sub(x.at) > sightTime {
			delete(s.all, mac)
			continue
		}
		out = append(out, x.Sighting)
	}
	return out
}

// at says where a request came from, as an admin writes it: SWITCH/PORT. The
// two parts of a relay's option are texts or, by some, bytes behind a type and
// a length.
func (s Sighting) at() string {
	parts := []string{}
	for _, p := range [][]byte{s.Switch, s.Port} {
		if len(p) > 2 && int(p[1]) == len(p)-2 {
			p = p[2:]
		}
		if text := bmc.Clean(string(p)); text != "" {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "/")
}
