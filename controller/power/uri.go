package power

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"muster/shared/object"
	"muster/shared/template"
)

// URI names a BMC: scheme[+schemes]://[server_username@]server/[username[:password]@]host.
// The server is what is connected to; what comes after it is for services
// behind which many machines are, and host is the machine's name there.
type URI struct {
	Text           string  `json:"-"` // with all values, as it can be connected to
	Scheme         string  `json:"scheme"`
	Schemes        string  `json:"schemes"`
	Server         string  `json:"server"` // with its port, where one is given
	Path           string  `json:"path"`
	ServerUsername *string `json:"server_username"` // with its password, user:password
	Username       *string `json:"username"`
	Password       *string `json:"password"`
	Host           *string `json:"host"`
}

// Parse fills a node's power_uri in and takes it apart. Values that stand
// before the @ may hold any printable character; they are percent-encoded.
func Parse(text string, values func(s template.Section, key string) (any, bool)) (*URI, error) {
	parts, err := template.Parse(text)
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		if part.Ref != nil && part.Ref.Func != "" {
			return nil, fmt.Errorf("%s: a URI takes values only, no functions", part.Ref)
		}
	}
	places := object.Places(parts)
	uses := 0
	full, err := template.Expand("power_uri", text, template.Options{Value: values, Escape: func(ref template.Ref, value string) (string, error) {
		uses++
		return fit(ref, value, places[uses-1] == object.InCredentials)
	}})
	if err != nil {
		return nil, err
	}
	return split(full)
}

// plain are the characters that mean nothing in user and password of a URI
// (RFC 3986 §3.2.1), but for the colon.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;="

func fit(ref template.Ref, value string, secret bool) (string, error) {
	var b strings.Builder
	for i := range len(value) {
		c := value[i]
		switch {
		case c < ' ' || c == 0x7f:
			return "", fmt.Errorf("%s: its value has the control character %q", ref, c)
		case secret && !strings.Contains(plain, string(rune(c))):
			fmt.Fprintf(&b, "%%%02X", c)
		case !secret && (c == ' ' || c > '~'):
			return "", fmt.Errorf("%s: its value has the character %q, which no URI has there: write it as %%%02X", ref, c, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

func split(full string) (*URI, error) {
	u, err := url.Parse(full)
	if err != nil || u.Scheme == "" || u.Opaque != "" || !strings.Contains(full, "://") {
		// The parser's message would quote the password.
		return nil, errors.New("it is no URI such as ipmi://USER:PASSWORD@ADDRESS/ipmi; write : / @ and % in a user or password as %3A %2F %40 and %25, or take them from attributes, as in ipmi://<ipmi_user>:<ipmi_pass>@10.0.0.9/ipmi")
	}
	out := &URI{Text: full, Server: u.Host, Path: strings.TrimPrefix(u.Path, "/")}
	out.Scheme, out.Schemes, _ = strings.Cut(u.Scheme, "+")
	if u.User != nil {
		text := u.User.Username()
		if password, ok := u.User.Password(); ok {
			text += ":" + password
		}
		out.ServerUsername = &text
	}
	host := out.Path
	if i := strings.LastIndex(host, "@"); i >= 0 {
		user, password, ok := strings.Cut(host[:i], ":")
		if out.Username = &user; ok {
			out.Password = &password
		}
		host = host[i+1:]
	}
	if host != "" {
		out.Host = &host
	}
	return out, nil
}
