package object

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"muster/shared/fault"
	"muster/shared/kind"
)

// Head is a machine that runs muster. Each registers itself when it starts;
// its UID is its own and lies beside its data, so that a head stays the same
// one whatever happens to the database.
type Head struct {
	kind.Meta
	Name        string   `json:"name,omitempty"`
	Description string   `json:"description,omitempty"`
	SSHPublic   string   `json:"ssh_public"`
	CAPEM       string   `json:"ca_pem,omitempty"`
	PeerURL     string   `json:"peer_url,omitempty"`
	Addresses   []string `json:"addresses,omitempty"`
}

func head() *kind.Spec {
	fields := meta(
		kind.Field{Path: "name", Summary: "its host name", Source: kind.User, Format: kind.Name, Unique: true},
		descriptionField(),
		kind.Field{Path: "ssh_public", Summary: "its public SSH key", Source: kind.User, Format: sshKey, Required: true},
		kind.Field{Path: "ca_pem", Summary: "the certificates, PEM, that its own can be checked with", Source: kind.User, Format: certificates},
		kind.Field{Path: "peer_url", Summary: "where other heads reach it", Source: kind.User, Format: webAddress},
		kind.Field{Path: "addresses", Summary: "the addresses that it comes from; what comes from them may do what only heads may", Source: kind.User, Format: kind.List("addresses", headAddress)},
	)
	for i := range fields {
		if f := &fields[i]; f.Path == "uid" { // the head brings it along
			f.Format, f.OnCreate, f.Required = uidFormat, true, true
		}
	}
	return &kind.Spec{
		Name: KindHead, Plural: "heads", Title: "Head",
		Doc:      "A machine that runs muster.",
		New:      func() kind.Object { return &Head{} },
		Names:    []string{"name"},
		Read:     "HeadsRead",
		Write:    "HeadsWrite",
		NoPut:    true, // a head that lost its key or its certificates by a slip would be locked out
		Reserved: []string{"down", "services", "peerurl", "files"},
		Columns:  []string{"name", "uid", "peer_url", "addresses", "description"},
		Fields:   fields,
		After:    keepThisHead,
	}
}

// keepThisHead refuses to delete the head that runs; it takes its record away
// itself when it leaves the others.
func keepThisHead(tx kind.Tx, obj, old kind.Object) error {
	if obj != nil || old.Base().UID != tx.HeadUID() {
		return nil
	}
	others := false
	err := tx.Each(KindHead, func(kind.Object) error { others = true; return nil })
	switch {
	case err != nil:
		return err
	case !others:
		return fault.New(fault.Conflict, "This is the only head: without it there is no cluster.")
	case !tx.By().Itself():
		return fault.New(fault.Conflict, "This head is running: it leaves the others by POST /api/v1/database/leave on it.")
	}
	return nil
}

var uidFormat = kind.Parsed("uid", func(s string) (string, error) {
	if !kind.UIDPattern.MatchString(s) {
		return "", fmt.Errorf("%.80q is not a UID: 32 lower-case letters and digits", s)
	}
	return s, nil
})

// certificates are PEM blocks, each a certificate and nothing else.
var certificates = kind.Parsed("certificates", func(s string) (string, error) {
	if len(s) > kind.MaxText {
		return "", fmt.Errorf("%d bytes are too long, at most %d are taken", len(s), kind.MaxText)
	}
	rest := []byte(s)
	for n := 1; len(strings.TrimSpace(string(rest))) > 0; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return "", errors.New("is not PEM: it takes blocks that begin with -----BEGIN CERTIFICATE-----")
		}
		if block.Type != "CERTIFICATE" {
			return "", fmt.Errorf("block %d is a %q, only certificates belong here", n, block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "", fmt.Errorf("certificate %d cannot be read: %v", n, err)
		}
	}
	return s, nil
})

// webAddress is where a server answers: scheme, host and maybe a port.
var webAddress = kind.Parsed("url", func(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || len(s) > 512 || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", fmt.Errorf("%.80q is not a URL such as https://head2:8443", s)
	}
	return u.Scheme + "://" + u.Host, nil
})

// headAddress is one that a head may come from. Loopback is everybody's on
// each machine, so that it identifies no other one.
var headAddress = kind.Parsed("ip", func(s string) (string, error) {
	text, err := kind.IP.Text(s)
	if err != nil {
		return "", err
	}
	if a := netip.MustParseAddr(text); a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() {
		return "", fmt.Errorf("%s is no address of one machine in the network", text)
	}
	return text, nil
})
