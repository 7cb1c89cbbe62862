package boot

import (
	"bytes"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Type is a DHCP message type (RFC 2132 §9.6); zero is BOOTP.
type Type uint8

// The message types.
const (
	TypeDiscover Type = iota + 1
	TypeOffer
	TypeRequest
	TypeDecline
	TypeAck
	TypeNak
	TypeRelease
	TypeInform
)

// Request is a DHCP packet as far as Plan cares. Addresses are zero values
// when the packet has none or 0.0.0.0.
type Request struct {
	Source      netip.AddrPort // of the UDP packet
	BootServer  bool           // it came to port 4011, a PXE boot server's
	Reply       bool           // BOOTREPLY: from a server, not a client
	Type        Type
	MAC         net.HardwareAddr
	CIAddr      netip.Addr // the client has and uses this address
	GIAddr      netip.Addr // the relay that passed it on
	Link        netip.Addr // option 82.5: the link is another than giaddr's (RFC 3527)
	Requested   netip.Addr // option 50
	ServerID    netip.Addr // option 54
	VendorClass string     // option 60
	UserClass   string     // option 77
	Arch        int        // option 93, the first; -1 without
	GUID        []byte     // option 97
	IPXE        []byte     // option 175, iPXE's own: features as sub-options
	BootItem    []byte     // option 43.71, of a boot server request
	Hostname    string     // option 12, as the client says it
	Circuit     []byte     // option 82.1: the port, as the relay says it (RFC 3046)
	Remote      []byte     // option 82.2: the switch
}

// Client is what sort of program sent a request.
type Client int

// The clients. What iPXE lacks HTTP or a kernel loader is PXE: it then gets an
// iPXE that has both.
const (
	OS Client = iota
	PXE
	HTTPBoot
	IPXE
)

func (c Client) String() string {
	return [...]string{"operating system", "PXE", "UEFI HTTP boot", "iPXE"}[c]
}

// Client says what sent the request.
func (r Request) Client() Client {
	if r.UserClass == "iPXE" || len(r.IPXE) > 0 {
		if len(r.IPXE) == 0 || ipxeCan(r.IPXE) {
			return IPXE
		}
		return PXE
	}
	switch {
	case strings.HasPrefix(r.VendorClass, "PXEClient"):
		return PXE
	case strings.HasPrefix(r.VendorClass, "HTTPClient"):
		return HTTPBoot
	}
	return OS
}

// ipxeCan says whether the feature list of option 175 has what the script
// needs: HTTP, and Linux by bzImage or as an EFI program. (iPXE's features.h;
// some cards come with an iPXE that can only do iSCSI.)
func ipxeCan(features []byte) bool {
	const http, bzImage, efi = 0x13, 0x18, 0x24
	var have [256]bool
	for len(features) >= 2 {
		n := int(features[1])
		if len(features) < 2+n {
			break
		}
		have[features[0]] = true
		features = features[2+n:]
	}
	return have[http] && (have[bzImage] || have[efi])
}

// Machine architectures of option 93 (IANA, "Processor Architecture Types").
const (
	archBIOS      = 0
	archUEFIx64   = 7 // registered as "EBC", sent by x86-64 firmware
	archUEFIx64b  = 9
	archUEFIarm64 = 11
	archHTTPx64   = 16
	archHTTParm64 = 19
)

// arch is the client's architecture, from option 93 or else the vendor class
// ("PXEClient:Arch:00007:UNDI:003016").
func (r Request) arch() int {
	if r.Arch >= 0 {
		return r.Arch
	}
	_, after, ok := strings.Cut(r.VendorClass, ":Arch:")
	if n, err := strconv.Atoi(firstField(after)); ok && err == nil {
		return n
	}
	return archBIOS
}

func firstField(s string) string {
	f, _, _ := strings.Cut(s, ":")
	return f
}

// ArchName is the client's architecture in words, "" for an operating system.
func (r Request) ArchName() string {
	if r.Client() == OS {
		return ""
	}
	switch n := r.arch(); n {
	case archBIOS:
		return "BIOS"
	case archUEFIx64, archUEFIx64b, archHTTPx64:
		return "UEFI x86-64"
	case archUEFIarm64, archHTTParm64:
		return "UEFI arm64"
	default:
		return "architecture " + strconv.Itoa(n)
	}
}

// programs are the iPXE binaries that run on an architecture, best first.
// Debian's package has no arm64 ones; Ubuntu's names them so.
func (r Request) programs() []string {
	switch r.arch() {
	case archBIOS:
		return []string{"undionly.kpxe"}
	case archUEFIx64, archUEFIx64b, archHTTPx64:
		return []string{"snponly.efi", "ipxe.efi"}
	case archUEFIarm64, archHTTParm64:
		return []string{"snponly-arm64.efi", "ipxe-arm64.efi"}
	}
	return nil
}

// Identity is the machine's identifier of option 97, or "" for the fillers that
// firmware without one sends. Identifiers come in two byte orders, even from
// one machine (firmware and iPXE may differ): both give one identity.
func (r Request) Identity() string {
	if len(r.GUID) != 17 || r.GUID[0] != 0 {
		return ""
	}
	id := bytes.Clone(r.GUID[1:])
	if n := bytes.Count(id, id[:1]); n == len(id) {
		return ""
	}
	swapped := bytes.Clone(id)
	for _, f := range [][]byte{swapped[0:4], swapped[4:6], swapped[6:8]} {
		for i, j := 0, len(f)-1; i < j; i, j = i+1, j-1 {
			f[i], f[j] = f[j], f[i]
		}
	}
	if bytes.Compare(swapped, id) < 0 {
		id = swapped
	}
	return string(id)
}

// bmcWords are in what BMCs say of themselves: iDRAC in option 60, iLO's name
// there, OpenBMC, and what others call theirs.
var bmcWords = [...]string{"idrac", "cpqrib", "ilo", "openbmc", "bmc", "xcc", "imm", "cimc", "irmc", "ipmi", "redfish"}

// bmcMakers are the first three bytes of MACs of boards whose makers put a BMC
// on each; their other interfaces ask as firmware or as an operating system.
var bmcMakers = [...]string{
	"00:25:90", "0c:c4:7a", "ac:1f:6b", "3c:ec:ef", "7c:c2:55", "90:5a:08", // Super Micro
	"d0:94:66", "b0:7b:25", "4c:d9:8f", "f4:02:70", // Dell
	"94:40:c9", "94:18:82", "5c:ed:8c", // Hewlett Packard Enterprise
}

// MaybeBMC says whether a request looks as if a BMC sent it: by its words, or
// by its maker. It may be wrong; what follows must be harmless then.
func (r Request) MaybeBMC() bool {
	if r.Client() != OS || len(r.MAC) != 6 {
		return false
	}
	class, name := strings.ToLower(r.VendorClass), strings.ToLower(r.Hostname)
	for _, word := range bmcWords {
		if strings.Contains(class, word) || strings.HasPrefix(name, word) {
			return true
		}
	}
	maker := r.MAC.String()[:len("00:00:00")]
	for _, m := range bmcMakers {
		if m == maker {
			return true
		}
	}
	return false
}
