package boot

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"strings"

	"muster/shared/wire"
)

// Line is what the kernel's command line says to the agent.
type Line struct {
	Head          string           // http URL
	HTTPS         string           // https URL; empty when the machine shall not enrol
	CA            string           // SHA-256 of the head's authority
	Key           string           // one-time enrolment key, or wire.KeyAsk
	Config, Image string           // UIDs of what to boot instead of what the head would say
	MAC           net.HardwareAddr // of the interface to use; nil for any
	Stop          string           // step to stop before
}

// ParseLine reads a command line. What is wrong with it comes back as one
// error, with everything that is right: a machine must be enterable even when
// its boot configuration has a typing error.
func ParseLine(text string) (Line, error) {
	var l Line
	var wrong []string
	for key, value := range parameters(text) {
		bad := func(what string) { wrong = append(wrong, fmt.Sprintf("%s=%q is not %s", key, value, what)) }
		switch key {
		case wire.CmdlineHead:
			if l.Head = value; !isURL(value, "http") && !isURL(value, "https") {
				bad("an http URL")
			}
		case wire.CmdlineHTTPS:
			if l.HTTPS = value; !isURL(value, "https") {
				bad("an https URL")
			}
		case wire.CmdlineCA:
			l.CA = strings.ToLower(value)
			if raw, err := hex.DecodeString(value); err != nil || len(raw) != 32 {
				bad("a SHA-256 in hexadecimal")
			}
		case wire.CmdlineKey:
			l.Key = value
		case wire.CmdlineConfig:
			l.Config = value
		case wire.CmdlineImage:
			l.Image = value
		case wire.CmdlineMAC:
			mac, err := net.ParseMAC(value)
			if err != nil || len(mac) != 6 {
				bad("a MAC address")
				continue
			}
			l.MAC = mac
		case wire.CmdlineStop:
			if l.Stop = value; value != wire.StepImage && value != wire.StepRoot && value != wire.StopRescue {
				bad(wire.StepImage + ", " + wire.StepRoot + " or " + wire.StopRescue)
			}
		}
	}
	if l.Head == "" {
		wrong = append(wrong, wire.CmdlineHead+" is missing: which head shall this machine ask?")
	}
	if wrong != nil {
		return l, fmt.Errorf("the kernel's command line: %s", strings.Join(wrong, "; "))
	}
	return l, nil
}

func isURL(s, scheme string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == scheme && u.Hostname() != ""
}

// parameters splits a command line as the kernel does: at blanks outside
// double quotes. The last value of a key wins.
func parameters(text string) map[string]string {
	out := map[string]string{}
	quoted := false
	for _, field := range strings.FieldsFunc(text, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n')
	}) {
		key, value, _ := strings.Cut(strings.ReplaceAll(field, `"`, ""), "=")
		out[key] = value
	}
	return out
}
