package object

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"muster/shared/fault"
	"muster/shared/kind"
)

// Hostname is a DNS record for something that is no node. With a MAC its
// address is given out by DHCP as well.
type Hostname struct {
	kind.Meta
	Name        string  `json:"name"`
	Type        string  `json:"type"`
	Description string  `json:"description,omitempty"`
	IP          string  `json:"ip,omitempty"`
	MAC         string  `json:"mac,omitempty"`
	Target      string  `json:"target,omitempty"`
	Port        uint16  `json:"port,omitempty"`
	Service     string  `json:"service,omitempty"`
	Proto       string  `json:"proto,omitempty"`
	Weight      *uint16 `json:"weight,omitempty"`
	Priority    *uint16 `json:"priority,omitempty"`
	Domain      string  `json:"domain,omitempty"`
}

// The types of record.
const (
	RecordA    = "arec"
	RecordAAAA = "aaaarec"
	RecordSRV  = "srvrec"
)

var labelsPattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$`)

// dnsName is what is good as a name in DNS. It leaves room for a domain.
func dnsName(s string) (string, error) {
	s = strings.TrimSuffix(s, ".")
	_, isIP := netip.ParseAddr(s)
	switch {
	case isIP == nil:
		return "", fmt.Errorf("%q is an address, not a name", s)
	case len(s) > 190:
		return "", fmt.Errorf("a name of %d bytes is too long, at most 190 are taken", len(s))
	case !labelsPattern.MatchString(s):
		return "", fmt.Errorf("%q is no host name: parts of at most 63 letters, digits, - and _ with dots between them (other letters as xn--…)", s)
	case kind.UIDPattern.MatchString(s):
		return "", fmt.Errorf("%q could be mistaken for a UID", s)
	}
	return s, nil
}

var (
	recordName  = kind.Parsed("hostname", dnsName)
	serviceName = kind.Parsed("service", func(s string) (string, error) {
		label := strings.TrimPrefix(s, "_")
		if len(label) > 62 || strings.Contains(label, ".") || !labelsPattern.MatchString(label) {
			return "", fmt.Errorf("%q is no service such as ldap", s)
		}
		return label, nil
	})
)

func hostname() *kind.Spec {
	short := kind.Int(0, 1<<16-1)
	return &kind.Spec{
		Name: KindHostname, Plural: "hostnames", Title: "Hostname",
		Aliases:  []kind.Alias{{Name: "host", Plural: "hosts"}},
		Doc:      "A DNS record beside those of nodes and heads.",
		New:      func() kind.Object { return &Hostname{} },
		Names:    []string{"name"},
		Read:     "HostnamesRead",
		Write:    "HostnamesWrite",
		Reserved: []string{"bypart"},
		Fields: meta(
			kind.Field{Path: "name", Summary: "the name, which records of different types may share; one with dots and no domain is a full name", Source: kind.User, Format: recordName, Required: true, Unique: true, Per: "type"},
			kind.Field{Path: "type", Summary: "an IPv4 address, an IPv6 address or a service; found out from ip or target and port when unset", Source: kind.User, Format: kind.OneOf(RecordA, RecordAAAA, RecordSRV)},
			descriptionField(),
			kind.Field{Path: "ip", Summary: "the address; arec and aaaarec need it", Source: kind.User, Format: kind.IP},
			kind.Field{Path: "mac", Summary: "the machine that gets the address by DHCP; none when unset", Source: kind.User, Format: kind.MAC, Unique: true, Label: "MAC"},
			kind.Field{Path: "target", Summary: "the name of the machine with the service; srvrec needs it", Source: kind.User, Format: recordName},
			kind.Field{Path: "port", Summary: "the service's port; srvrec needs it", Source: kind.User, Format: kind.Int(1, 1<<16-1)},
			kind.Field{Path: "service", Summary: "the service of a srvrec; the record's name when unset", Source: kind.User, Format: serviceName},
			kind.Field{Path: "proto", Summary: "the protocol of a srvrec; tcp when unset", Source: kind.User, Format: kind.OneOf("tcp", "udp")},
			kind.Field{Path: "weight", Summary: "among records of one priority, the share of clients that choose this one (RFC 2782)", Source: kind.User, Format: short},
			kind.Field{Path: "priority", Summary: "sent as it is: clients try the lowest number first (RFC 2782)", Source: kind.User, Format: short},
			kind.Field{Path: "domain", Summary: "the domain that the name is in; that of the address's network, or the cluster's, when unset", Source: kind.User, Format: domainName},
		),
		Columns: []string{"name", "type", "ip", "mac", "service", "proto", "target", "port", "domain", "description"},
		Check:   func(obj kind.Object) error { return obj.(*Hostname).check() },
		Keys: func(obj kind.Object) map[string]string {
			if h := obj.(*Hostname); h.MAC != "" {
				return map[string]string{"lease": h.IP}
			}
			return nil
		},
		Prepare: prepareHostname,
		After:   countHostname,
	}
}

// infer sets the type where what is given leaves no doubt.
func (h *Hostname) infer() error {
	a, err := netip.ParseAddr(h.IP)
	switch {
	case h.Type != "":
	case err == nil && a.Is4():
		h.Type = RecordA
	case err == nil:
		h.Type = RecordAAAA
	case h.Target != "" && h.Port != 0:
		h.Type = RecordSRV
	default:
		return fault.Invalidf("A hostname needs: ip, or target and port (type says which; it is found out from them).")
	}
	return nil
}

// check holds a record to its type.
func (h *Hostname) check() error {
	var missing, extra []string
	look := func(isSet, wanted, needed bool, path string) {
		if isSet && !wanted {
			extra = append(extra, path)
		}
		if !isSet && needed {
			missing = append(missing, path)
		}
	}
	srv := h.Type == RecordSRV
	look(h.IP != "", !srv, !srv, "ip")
	look(h.MAC != "", !srv, false, "mac")
	look(h.Target != "", srv, srv, "target")
	look(h.Port != 0, srv, srv, "port")
	look(h.Service != "", srv, false, "service")
	look(h.Proto != "", srv, false, "proto")
	look(h.Weight != nil, srv, false, "weight")
	look(h.Priority != nil, srv, false, "priority")
	switch {
	case len(missing) > 0:
		return fault.Invalidf("A hostname of the type %s needs: %s", h.Type, strings.Join(missing, ", "))
	case len(extra) > 0:
		return fault.Invalidf("A hostname of the type %s has no %s; set it to null, or change the type.", h.Type, strings.Join(extra, ", "))
	case srv:
		return h.checkService()
	}
	if a, err := netip.ParseAddr(h.IP); err != nil || a.Is4() != (h.Type == RecordA) {
		return fault.Invalidf("type: %s does not go with the address %s: arec is for IPv4, aaaarec for IPv6.", h.Type, h.IP)
	}
	return nil
}

func (h *Hostname) checkService() error {
	if h.Service == "" {
		if _, err := serviceName.Text(h.Name); err != nil {
			return fault.Invalidf("service: the name %s is no service's; say which service it is.", h.Name)
		}
	}
	return nil
}

// prepareHostname refuses to give an address or a MAC away twice.
func prepareHostname(tx kind.Tx, obj, _ kind.Object) error {
	h := obj.(*Hostname)
	if err := h.infer(); err != nil || h.MAC == "" {
		return err
	}
	if uid, err := tx.Find(KindNode, "mac", h.MAC); err != nil || uid != "" {
		return errorOr(err, fault.New(fault.Conflict, "mac: %s is a node's.", h.MAC))
	}
	if uid, err := tx.Find(KindNode, "ip", h.IP); err != nil || uid != "" {
		return errorOr(err, fault.New(fault.Conflict, "ip: %s is a node's; DHCP cannot give it to %s too.", h.IP, h.MAC))
	}
	for key, value := range map[string]string{KeyBMCMAC: h.MAC, KeyBMCAddr: h.IP} {
		if uid, err := tx.Find(KindNode, key, value); err != nil || uid != "" {
			return errorOr(err, fault.New(fault.Conflict, "%s is that of a node's BMC.", value))
		}
	}
	if uid, err := tx.Find(KindHostname, "lease", h.IP); err != nil || uid != "" && uid != h.UID {
		return errorOr(err, fault.New(fault.Conflict, "ip: DHCP gives %s to the MAC of another hostname.", h.IP))
	}
	if tx.Taken(h.IP) {
		return fault.New(fault.Conflict, "ip: %s is this head's own; DHCP cannot give it to %s.", h.IP, h.MAC)
	}
	return nil
}

func errorOr(err, reason error) error {
	if err != nil {
		return err
	}
	return reason
}

// countHostname keeps how many records have an address, so that looking for a
// node's address need not read them all.
func countHostname(tx kind.Tx, obj, old kind.Object) error {
	count := func(o kind.Object, by int64) error {
		if o == nil || o.(*Hostname).IP == "" {
			return nil
		}
		name := hostHint(o.(*Hostname).IP)
		n, err := tx.Hint(name)
		if err != nil {
			return err
		}
		return tx.SetHint(name, max(0, n+by))
	}
	if err := count(old, -1); err != nil {
		return err
	}
	return count(obj, 1)
}

func hostHint(ip string) string { return "host/" + ip }

// hostHas says whether a record has the address.
func hostHas(tx kind.Tx, ip string) (bool, error) {
	if n, err := tx.Hint(hostHint(ip)); err != nil || n == 0 {
		return false, err
	}
	found := false
	err := tx.Each(KindHostname, func(o kind.Object) error {
		found = found || o.(*Hostname).IP == ip
		return nil
	})
	return found, err
}
