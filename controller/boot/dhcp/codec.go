package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"muster/controller/boot"
)

// Options that the library has no name for.
const (
	optGUID = dhcpv4.GenericOptionCode(97)
	optIPXE = dhcpv4.GenericOptionCode(175)
)

// read gives the packet as Plan sees it. Option values of a wrong length are
// as good as absent.
func read(p *dhcpv4.DHCPv4, from netip.AddrPort, bootServer bool) boot.Request {
	r := boot.Request{
		Source:      netip.AddrPortFrom(from.Addr().Unmap(), from.Port()),
		BootServer:  bootServer,
		Reply:       p.OpCode != dhcpv4.OpcodeBootRequest,
		Type:        boot.Type(p.MessageType()),
		MAC:         p.ClientHWAddr,
		CIAddr:      addr(p.ClientIPAddr),
		GIAddr:      addr(p.GatewayIPAddr),
		Requested:   addr(p.Options.Get(dhcpv4.OptionRequestedIPAddress)),
		ServerID:    addr(p.Options.Get(dhcpv4.OptionServerIdentifier)),
		VendorClass: string(p.Options.Get(dhcpv4.OptionClassIdentifier)),
		Arch:        -1,
		GUID:        p.Options.Get(optGUID),
		IPXE:        p.Options.Get(optIPXE),
		BootItem:    suboption(p.Options.Get(dhcpv4.OptionVendorSpecificInformation), 71),
		Link:        addr(suboption(p.Options.Get(dhcpv4.OptionRelayAgentInformation), 5)),
		Hostname:    string(p.Options.Get(dhcpv4.OptionHostName)),
		Circuit:     suboption(p.Options.Get(dhcpv4.OptionRelayAgentInformation), 1),
		Remote:      suboption(p.Options.Get(dhcpv4.OptionRelayAgentInformation), 2),
	}
	if p.HWType != 1 {
		r.MAC = nil
	}
	// RFC 3004 gives each class a length, iPXE sends its name alone.
	r.UserClass = string(p.Options.Get(dhcpv4.OptionUserClassInformation))
	if u := r.UserClass; len(u) > 1 && int(u[0]) == len(u)-1 {
		r.UserClass = u[1:]
	}
	if a := p.Options.Get(dhcpv4.OptionClientSystemArchitectureType); len(a) >= 2 {
		r.Arch = int(binary.BigEndian.Uint16(a))
	}
	return r
}

// suboption finds a value in an option of options.
func suboption(b []byte, code byte) []byte {
	for len(b) >= 2 && b[0] != 255 {
		n := int(b[1])
		if len(b) < 2+n {
			return nil
		}
		if b[0] == code {
			return b[2 : 2+n]
		}
		b = b[2+n:]
	}
	return nil
}

// addr is the IPv4 address in b; 0.0.0.0 is none.
func addr(b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if !ok || !a.Unmap().Is4() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a.Unmap()
}

// write makes the packet that says a to the sender of q.
func write(q *dhcpv4.DHCPv4, a boot.Answer, server netip.Addr) []byte {
	p := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootReply,
		HWType:        q.HWType,
		TransactionID: q.TransactionID,
		Flags:         q.Flags,
		GatewayIPAddr: q.GatewayIPAddr,
		ClientHWAddr:  q.ClientHWAddr,
		BootFileName:  a.BootFile,
		YourIPAddr:    ip(a.Address),
		ServerIPAddr:  ip(a.NextServer),
		Options:       dhcpv4.Options{},
	}
	p.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageType(messageType(a.Action))))
	p.UpdateOption(dhcpv4.OptServerIdentifier(ip(server)))
	for _, code := range []dhcpv4.OptionCode{
		dhcpv4.OptionClientIdentifier, // RFC 6842
		optGUID,                       // PXE 2.1
		dhcpv4.OptionRelayAgentInformation,
	} {
		if v := q.Options.Get(code); v != nil {
			p.UpdateOption(dhcpv4.OptGeneric(code, v))
		}
	}
	switch a.Action {
	case boot.DoNak:
		// A relay must broadcast it: the client has no address (RFC 2131 §4.3.2).
		p.Flags |= 0x8000
		p.UpdateOption(dhcpv4.OptMessage(a.Reason))
		return p.ToBytes()
	case boot.DoAck:
		p.ClientIPAddr = q.ClientIPAddr
	}
	network(p, a)
	bootOptions(p, q, a)
	return p.ToBytes()
}

func messageType(a boot.Action) boot.Type {
	switch a {
	case boot.DoOffer:
		return boot.TypeOffer
	case boot.DoNak:
		return boot.TypeNak
	}
	return boot.TypeAck
}

// network adds the lease and what is true of the whole network.
func network(p *dhcpv4.DHCPv4, a boot.Answer) {
	if a.Lease > 0 {
		p.UpdateOption(dhcpv4.OptIPAddressLeaseTime(a.Lease))
		p.UpdateOption(dhcpv4.OptRenewTimeValue((a.Lease / 2).Truncate(time.Second)))
		p.UpdateOption(dhcpv4.OptRebindingTimeValue((a.Lease / 8 * 7).Truncate(time.Second)))
	}
	n := a.Network
	if !n.Prefix.IsValid() {
		return
	}
	mask := net.CIDRMask(n.Prefix.Bits(), 32)
	p.UpdateOption(dhcpv4.OptSubnetMask(mask))
	last := binary.BigEndian.Uint32(n.Prefix.Addr().AsSlice()) | ^binary.BigEndian.Uint32(mask)
	p.UpdateOption(dhcpv4.OptBroadcastAddress(binary.BigEndian.AppendUint32(nil, last)))
	if n.Router.IsValid() {
		p.UpdateOption(dhcpv4.OptRouter(ip(n.Router)))
	}
	var dns []net.IP
	for _, a := range n.DNS {
		dns = append(dns, ip(a))
	}
	if len(dns) > 0 {
		p.UpdateOption(dhcpv4.OptDNS(dns...))
	}
	if a.Hostname != "" {
		p.UpdateOption(dhcpv4.OptHostName(a.Hostname))
	}
	if a.Domain != "" {
		p.UpdateOption(dhcpv4.OptDomainName(a.Domain))
	}
}

// bootOptions adds what only firmware reads. The file name goes into the
// header, where old ROMs look, and into the option for those that ask for it.
func bootOptions(p, q *dhcpv4.DHCPv4, a boot.Answer) {
	if a.BootFile != "" && (q.IsOptionRequested(dhcpv4.OptionBootfileName) || len(a.BootFile) > 127) {
		p.UpdateOption(dhcpv4.OptBootFileName(a.BootFile))
	}
	if a.NextServer.IsValid() && q.IsOptionRequested(dhcpv4.OptionTFTPServerName) {
		p.UpdateOption(dhcpv4.OptTFTPServerName(a.NextServer.String()))
	}
	if a.VendorClass != "" {
		p.UpdateOption(dhcpv4.OptClassIdentifier(a.VendorClass))
	}
	if len(a.Vendor) > 0 {
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, a.Vendor))
	}
	if a.NoProxy {
		p.UpdateOption(dhcpv4.OptGeneric(optIPXE, []byte{176, 1, 1}))
	}
}

// ip gives an address as the library takes it, nil when there is none.
func ip(a netip.Addr) net.IP {
	if !a.IsValid() {
		return nil
	}
	return a.AsSlice()
}
