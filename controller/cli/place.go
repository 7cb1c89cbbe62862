package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"muster/shared/client"
)

// defaultData is where a head keeps its data unless told otherwise, and
// defaultHead where it listens.
const (
	defaultData = "/var/lib/muster"
	defaultHead = "http://127.0.0.1:8080"
)

func (m *muster) dataDir() string {
	if dir := m.Getenv("MUSTER_DATA"); dir != "" {
		return dir
	}
	return defaultData
}

func (m *muster) socket() string { return filepath.Join(m.dataDir(), "login.sock") }

// listening is DATA/head.json, in which a running head says where it listens.
type listening struct {
	HTTP  string `json:"http"`
	HTTPS string `json:"https"`
}

// listening gives the zero value where no head has run here, or only one whose
// data others may not read.
func (m *muster) listening() (listening, error) {
	var l listening
	path := filepath.Join(m.dataDir(), "head.json")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &l)
	}
	if err != nil {
		return l, fmt.Errorf("where the local head listens cannot be read: %s: %w", path, err)
	}
	return l, nil
}

// headURL is the head to speak to: the flag, the environment, the local one.
func (m *muster) headURL() (string, error) {
	for _, given := range []string{m.head, m.Getenv("MUSTER_HEAD")} {
		if given != "" {
			u, err := client.ParseHead(given)
			if err != nil {
				return "", err
			}
			return u.String(), nil
		}
	}
	l, err := m.listening()
	if err != nil {
		return "", err
	}
	for _, u := range []string{l.HTTP, l.HTTPS} {
		if u != "" {
			return reachable(u), nil
		}
	}
	return defaultHead, nil
}

// reachable puts this machine in the place of "any address".
func reachable(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	if a, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "" || (err == nil && a.IsUnspecified()) {
		u.Host = net.JoinHostPort("127.0.0.1", u.Port())
	}
	return u.String()
}

// isLocal says whether the URL is that of the head whose data directory is
// here. Only then may a one-time secret for it go to that URL: another server
// could log in with the secret in our place.
func (m *muster) isLocal(head string) bool {
	u, err := url.Parse(head)
	if err != nil || !ownHost(u.Hostname()) {
		return false
	}
	l, err := m.listening()
	if err != nil {
		return false
	}
	if l == (listening{}) {
		return true
	}
	return slices.ContainsFunc([]string{l.HTTP, l.HTTPS}, func(own string) bool {
		o, err := url.Parse(own)
		return err == nil && own != "" && port(o) == port(u)
	})
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

func ownHost(host string) bool {
	if name, err := os.Hostname(); host == "localhost" || (err == nil && host == name) {
		return true
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if a.IsLoopback() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(own, func(n net.Addr) bool {
		p, err := netip.ParsePrefix(n.String())
		return err == nil && p.Addr().Unmap() == a.Unmap()
	})
}

// localUsers are the admins as whom to try the login socket: oneself, and for
// root also the user whom the head runs as, who is its first admin.
func (m *muster) localUsers() []string {
	var out []string
	add := func(uid int) {
		if u, err := user.LookupId(strconv.Itoa(uid)); err == nil && !slices.Contains(out, u.Username) {
			out = append(out, u.Username)
		}
	}
	add(os.Geteuid())
	if info, err := os.Stat(m.socket()); err == nil && os.Geteuid() == 0 {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			add(int(st.Uid))
		}
	}
	return out
}
