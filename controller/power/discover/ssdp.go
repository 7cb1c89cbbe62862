package discover

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/ipv4"
)

// SSDPGroup is where services listen for searches (UPnP 1.1 §1.3.2).
var SSDPGroup = netip.MustParseAddrPort("239.255.255.250:1900")

// Redfish's search target (DSP0266, "Discovery"); answers may have a minor
// version behind it.
const searchTarget = "urn:dmtf-org:service:redfish-rest:1"

// Bounds of a search: how long services may wait before they answer, and the
// size of an answer in bytes.
const (
	searchWait = 1 // seconds
	maxAnswer  = 2048
	searchTTL  = 2 // UPnP's own default; nothing may lead far away
)

// service is a Redfish service that announced itself. The address is where the
// answer came from, whatever that says.
type service struct {
	Addr netip.Addr
	Port string // "" for HTTPS's own
	HTTP bool   // not HTTPS
	UUID string // of the service
}

// search looks for Redfish services on an interface, or where its name is empty
// by the kernel's choice. One address counts once; what comes from outside of
// within is nobody's.
func search(ctx context.Context, group netip.AddrPort, ifname string, wait time.Duration, within func(netip.Addr) bool) ([]service, error) {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	p := ipv4.NewPacketConn(conn)
	if ifname != "" && group.Addr().IsMulticast() {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return nil, err
		}
		if err := p.SetMulticastInterface(ifi); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(p.SetMulticastTTL(searchTTL), conn.SetReadDeadline(time.Now().Add(wait))); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })
	defer stop()
	question := "M-SEARCH * HTTP/1.1\r\nHOST: " + group.String() + "\r\nMAN: \"ssdp:discover\"\r\nMX: " + strconv.Itoa(searchWait) + "\r\nST: " + searchTarget + "\r\n\r\n"
	for range 2 { // datagrams get lost
		if _, err := conn.WriteToUDPAddrPort([]byte(question), group); err != nil {
			return nil, err
		}
	}
	var out []service
	seen := map[netip.Addr]bool{}
	for buf := make([]byte, maxAnswer+1); len(out) < maxFound; {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		at := from.Addr().Unmap()
		if err != nil || n > maxAnswer || seen[at] || !within(at) {
			continue
		}
		if s, ok := parseAnswer(at, buf[:n]); ok {
			seen[at] = true
			out = append(out, s)
		}
	}
	return out, ctx.Err()
}

// parseAnswer reads an answer to a search. Of its URL only scheme and port are
// believed: who answers must not lead the head to somebody else.
func parseAnswer(from netip.Addr, p []byte) (s service, ok bool) {
	in := textproto.NewReader(bufio.NewReader(bytes.NewReader(p)))
	line, err := in.ReadLine()
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 200") {
		return s, false
	}
	mime, err := in.ReadMIMEHeader()
	if err != nil && len(mime) == 0 {
		return s, false
	}
	h := http.Header(mime)
	if st := h.Get("ST"); st != searchTarget && !strings.HasPrefix(st, searchTarget+":") && !strings.HasPrefix(st, searchTarget+".") {
		return s, false
	}
	s.Addr = from
	if u, err := url.Parse(strings.Trim(h.Get("AL"), "<> ")); err == nil {
		s.HTTP = u.Scheme == "http"
		if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil && n > 0 {
			s.Port = strconv.FormatUint(n, 10)
		}
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(h.Get("USN")), "uuid:"), "::")
	s.UUID = tidyUUID(id)
	return s, true
}
