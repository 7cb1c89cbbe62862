package power

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"muster/controller/power/bmc"
	"muster/controller/power/ipmi"
	"muster/controller/power/qemu"
	"muster/controller/power/redfish"
	"muster/controller/power/relay"
	"muster/shared/fault"
	"muster/shared/object"
)

// agentScheme is a power_uri of nodes that have no BMC: the agent's link alone.
const agentScheme = "agent"

// Schemes are the ways to switch machines, by the URI's scheme.
func Schemes() map[string]bmc.Scheme {
	return map[string]bmc.Scheme{
		"ipmi": ipmi.Scheme{}, "redfish": redfish.Scheme{}, "ssh": relay.SSH{},
		"virsh": relay.Virsh{}, "libvirt": relay.Virsh{}, "xen": relay.Virsh{}, "qemu": qemuOrLibvirt{},
	}
}

// qemuOrLibvirt is qemu://: a monitor's socket where nothing but a path is
// given, a domain of libvirt's otherwise.
type qemuOrLibvirt struct{}

func (qemuOrLibvirt) Open(ctx context.Context, t bmc.Target) (bmc.Machine, error) {
	if t.Host == "" && (t.Transport == "" || t.Transport == "unix") {
		return qemu.Scheme{}.Open(ctx, t)
	}
	return relay.Virsh{}.Open(ctx, t)
}

// targets gives where a node is switched, the best place first; none for a
// node that only its agent can switch.
func (p *Power) targets(n *object.Node) ([]bmc.Target, error) {
	var out []bmc.Target
	values := p.Values(n)
	if n.PowerURI != nil && *n.PowerURI != "" {
		uri, err := Parse(*n.PowerURI, values)
		if err != nil {
			return nil, fault.New(fault.Conflict, "The power_uri of node %s cannot be used: %v.", n.Name, err)
		}
		if uri.Scheme != agentScheme {
			t, err := p.target(uri)
			if err != nil {
				return nil, fault.New(fault.Conflict, "The power_uri of node %s cannot be used: %v.", n.Name, err)
			}
			out = append(out, t)
		}
	}
	if n.RedfishURI == "" {
		return out, nil
	}
	uri, err := Parse(n.RedfishURI, values)
	if err != nil {
		return nil, fault.New(fault.Conflict, "The redfish_uri of node %s cannot be used: %v.", n.Name, err)
	}
	if uri.Scheme == "http" || uri.Scheme == "https" {
		uri.Schemes, uri.Scheme = uri.Scheme, "redfish"
	}
	t, err := p.target(uri)
	if err == nil && t.Scheme != "redfish" {
		err = fmt.Errorf("%s:// is not Redfish; write https://USER:PASSWORD@ADDRESS/", t.Scheme)
	}
	if err != nil {
		return nil, fault.New(fault.Conflict, "The redfish_uri of node %s cannot be used: %v.", n.Name, err)
	}
	if t.User == "" && len(out) > 0 && sameBMC(out[0], t) {
		t.User, t.Password = out[0].User, out[0].Password
	}
	return append(out, t), nil
}

// Console says where a node's console is: what uri says, filled in as a
// power_uri is, or where that is empty what the node's power_uri means: the
// BMC by IPMI, or beside a QEMU process's monitor NAME.qmp its NAME.serial.
// Not ok where there is none.
func (p *Power) Console(n *object.Node, uri string) (t bmc.Target, ok bool, err error) {
	derived := uri == ""
	if derived {
		if n.PowerURI == nil {
			return t, false, nil
		}
		scheme, _, _ := strings.Cut(*n.PowerURI, "://")
		if uri = *n.PowerURI; scheme != "ipmi" && scheme != "qemu" {
			return t, false, nil
		}
	}
	parsed, err := Parse(uri, p.Values(n))
	if err == nil {
		t, err = p.target(parsed)
	}
	if err != nil {
		return t, true, fmt.Errorf("the console's URI cannot be used: %w", err)
	}
	if derived && t.Scheme == "qemu" {
		monitor, found := strings.CutSuffix(t.Path, ".qmp")
		t.Path = monitor + ".serial"
		return t, found && t.Host == "" && t.Transport == "", nil
	}
	return t, true, nil
}

// sameBMC says whether a Redfish service without a user is asked as the user of
// power_uri: it is that BMC's own one. Not over plain HTTP and not at any other
// port: who may set a redfish_uri need not know the password, and could have it
// sent where he listens.
func sameBMC(power, service bmc.Target) bool {
	plain := service.Transport == "http"
	switch {
	case power.Host != service.Host:
		return false
	case power.Scheme == "redfish" && (power.Transport == "http") == plain && power.Port == service.Port:
		return true
	}
	return (power.Scheme == "ipmi" || power.Scheme == "redfish") && !plain && (service.Port == "" || service.Port == "443")
}

func (p *Power) target(uri *URI) (bmc.Target, error) {
	u, err := url.Parse(uri.Text)
	if err != nil {
		return bmc.Target{}, errors.New("it is no URI")
	}
	if _, ok := p.Schemes[uri.Scheme]; !ok {
		return bmc.Target{}, fmt.Errorf("nothing here speaks %s://; there are agent, ipmi, redfish, qemu, virsh and ssh", bmc.Clean(uri.Scheme))
	}
	if u.Fragment != "" || strings.Contains(u.Path, "@") {
		return bmc.Target{}, errors.New("it has an @ or # behind the address; write / @ # and % in a user or password as %2F %40 %23 and %25")
	}
	options, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bmc.Target{}, errors.New("its options are not like ?cipher=3&privilege=operator")
	}
	t := bmc.Target{Scheme: uri.Scheme, Transport: uri.Schemes, Host: u.Hostname(), Port: u.Port(), Path: strings.TrimPrefix(u.Path, "/"), Options: options}
	if u.User != nil {
		t.User = u.User.Username()
		t.Password, _ = u.User.Password()
	}
	return t, nil
}

// failed makes the fault of what went wrong at a target.
func failed(n *object.Node, t bmc.Target, err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	where := t.Scheme + " at " + bmc.Or(t.Host, "/"+t.Path)
	text := t.Hide(err.Error())
	code := fault.Upstream
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code, text = fault.Timeout, "it did not answer in time"
	case errors.Is(err, context.Canceled):
		code = fault.Unavailable
	case errors.Is(err, bmc.ErrUnsupported):
		code = fault.Conflict
	case errors.Is(err, bmc.ErrDenied):
		text += "; mind the power_uri and the attributes in it"
	}
	return fault.New(code, "The BMC of node %s (%s): %s.", n.Name, where, text)
}
