package root

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"muster/shared/wire"
)

// Network is what the image must know of the network that booted it.
type Network struct {
	Interface string
	MAC       string
	Address   net.IPNet
	DNS       []net.IP
	Domain    string
}

// Prepare writes into the new root and into run (the /run that is moved there)
// what makes it this node: host name, hosts, resolver, keys of admins, and
// that the image's network services keep the interface as it is.
//
// Files of the image are changed in RAM only, or on the node's own disk, where
// nothing is written that is there already. Where the image has decided
// itself, by a link in the place of resolv.conf, it is left alone.
func Prepare(newroot, run string, b wire.Boot, n Network) error {
	img, err := os.OpenRoot(newroot)
	if err != nil {
		return err
	}
	defer img.Close()
	name := b.Name
	if name == "" {
		name = "localhost"
	}
	if err := img.MkdirAll("etc", 0o755); err != nil {
		return err
	}
	if err := replace(img, "etc/hostname", []byte(name+"\n")); err != nil {
		return err
	}
	if err := hosts(img, name, b, n); err != nil {
		return err
	}
	if err := resolver(img, run, b, n); err != nil {
		return err
	}
	return networkd(run, n)
}

// Prepared are the files of the image that Prepare may change.
func Prepared() []string { return []string{"etc/hostname", "etc/hosts", "etc/resolv.conf"} }

// replace writes a file that may be a link in the image to somewhere else.
func replace(img *os.Root, name string, content []byte) error {
	if fi, err := img.Lstat(name); err == nil && !fi.Mode().IsRegular() {
		if err := img.Remove(name); err != nil {
			return err
		}
	}
	return write(img, name, content)
}

// write writes what is not there yet.
func write(img *os.Root, name string, content []byte) error {
	if old, err := img.ReadFile(name); err == nil && bytes.Equal(old, content) {
		return nil
	}
	return img.WriteFile(name, content, 0o644)
}

// hostsMark begins what hosts appended at an earlier boot from the same disk.
const hostsMark = "# What follows is of this node, made anew at each boot."

// hosts appends to the image's /etc/hosts the node itself and the head.
func hosts(img *os.Root, name string, b wire.Boot, n Network) error {
	old, err := img.ReadFile("etc/hosts")
	if err != nil {
		old = []byte("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	}
	old, _, _ = bytes.Cut(old, []byte(hostsMark))
	out := bytes.NewBuffer(old)
	if len(old) > 0 && old[len(old)-1] != '\n' {
		out.WriteByte('\n')
	}
	fmt.Fprintln(out, hostsMark)
	full := name
	if b.Domain != "" && !strings.Contains(name, ".") {
		full = name + "." + b.Domain + " " + name
	}
	for _, line := range append([]string{fmt.Sprintf("%s %s", n.Address.IP, full)}, b.Hosts...) {
		if !strings.ContainsAny(line, "\n\r\x00") {
			fmt.Fprintln(out, line)
		}
	}
	return replace(img, "etc/hosts", out.Bytes())
}

// resolver gives name servers to a plain resolv.conf, or to systemd-resolved.
func resolver(img *os.Root, run string, b wire.Boot, n Network) error {
	var servers []string
	for _, ip := range n.DNS {
		servers = append(servers, ip.String())
	}
	if len(servers) == 0 {
		return nil
	}
	domain := b.Domain
	if domain == "" {
		domain = n.Domain
	}
	if fi, err := img.Lstat("etc/resolv.conf"); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		text := "[Resolve]\nDNS=" + strings.Join(servers, " ") + "\n"
		if domain != "" {
			text += "Domains=" + domain + "\n"
		}
		return underRun(run, "systemd/resolved.conf.d/muster.conf", text, 0o644)
	}
	text := ""
	if domain != "" {
		text = "search " + domain + "\n"
	}
	for _, s := range servers {
		text += "nameserver " + s + "\n"
	}
	return write(img, "etc/resolv.conf", []byte(text))
}

// networkd tells systemd-networkd, where an image uses it, to keep the address
// and to renew its lease in the same name. NetworkManager takes an interface
// that is configured already as it finds it, and ifupdown asks by DHCP for the
// same address, so neither needs to be told. An image that wants it otherwise
// has a file of this name in /etc/systemd/network.
func networkd(run string, n Network) error {
	if n.MAC == "" {
		return nil
	}
	return underRun(run, "systemd/network/00-muster.network", fmt.Sprintf(`# The interface that this machine was booted from.
[Match]
PermanentMACAddress=%s

[Network]
DHCP=ipv4
KeepConfiguration=yes
IPv6AcceptRA=yes

[DHCPv4]
ClientIdentifier=mac
UseHostname=no
`, n.MAC), 0o644)
}

func underRun(run, name, text string, mode fs.FileMode) error {
	file := filepath.Join(run, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), mode)
}
