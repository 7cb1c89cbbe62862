package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

// LeaseFile is the lease's name in a state directory.
const LeaseFile = "lease.json"

// kept is a lease in its file.
type kept struct {
	Interface string        `json:"interface"`
	MAC       string        `json:"mac"`
	Time      time.Duration `json:"time"`
	ACK       []byte        `json:"ack"`
}

// Keep writes the lease to a state directory, for Renew. One without an end
// needs no renewing and is not written.
func (l *Lease) Keep(state string) error {
	if l.Time == 0 {
		return nil
	}
	raw, err := json.Marshal(kept{l.Interface, l.MAC.String(), l.Time, l.ack.ToBytes()})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(state, LeaseFile), raw, 0o600)
}

// Renew asks for the kept lease again, at the times of RFC 2131 section 4.4.5,
// until ctx ends. The address stays as it is whatever comes of it: the machine
// is lost without one. It returns at once when there is no lease.
func Renew(ctx context.Context, state string, log *slog.Logger) error {
	raw, err := os.ReadFile(filepath.Join(state, LeaseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var k kept
	if err := json.Unmarshal(raw, &k); err != nil {
		return err
	}
	ack, err := dhcpv4.FromBytes(k.ACK)
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(k.MAC)
	if err != nil {
		return err
	}
	wait := k.Time / 2
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(wait, time.Minute)):
		}
		renewed, err := renew(ctx, k.Interface, mac, ack)
		if err == nil {
			ack, wait, said = renewed, k.Time/2, ""
			continue
		}
		if err.Error() != said {
			log.Warn("the DHCP lease was not renewed", "address", ack.YourIPAddr, "error", err)
			said = err.Error()
		}
		wait /= 2
	}
}

func renew(ctx context.Context, name string, mac net.HardwareAddr, ack *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
	c, err := nclient4.New(name, nclient4.WithHWAddr(mac), nclient4.WithTimeout(firstWait), nclient4.WithRetry(attempts))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	lease, err := c.Renew(ctx, &nclient4.Lease{ACK: ack, Offer: ack}, options(mac)...)
	if err != nil {
		return nil, err
	}
	if got := lease.ACK.YourIPAddr; !got.Equal(ack.YourIPAddr) {
		return nil, fmt.Errorf("the server now wants this machine to have %v; that takes a reboot", got)
	}
	return lease.ACK, nil
}
