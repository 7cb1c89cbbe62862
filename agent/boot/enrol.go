package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"muster/agent/head"
	"muster/agent/identity"
	"muster/agent/root"
	"muster/shared/wire"
)

// maxRenewals is how many new keys a machine asks for until it goes on by its
// address alone.
const maxRenewals = 10

// driverTime is how long the drivers may take until a boot goes on beside
// them: one that hangs must not keep a machine with a working network out.
const driverTime = 20 * time.Second

// call is the first call to the head, over plain HTTP: the address speaks for
// the machine until it is enrolled.
func (m *machine) call(ctx context.Context) error {
	if m.line.Key == wire.KeyAsk {
		if err := m.renew(ctx); err != nil { // somebody else's DHCP server may be the only one here
			m.log.Warn("no key; the machine goes on by its address alone", "reason", err)
		}
	}
	err := m.client.Step(ctx, wire.Step{Step: wire.StepAgent, Detail: "agent " + m.version})
	return m.refused(ctx, err)
}

// enrol gets the machine's certificate. Without a key it goes on as a machine
// known by its address.
func (m *machine) enrol(ctx context.Context) error {
	if m.line.Key == "" || m.line.Key == wire.KeyAsk || m.line.HTTPS == "" || m.line.CA == "" {
		return nil
	}
	key, err := m.ownKey()
	if err != nil {
		return err
	}
	id, now, err := key.Enrol(ctx, m.dialer, identity.Ticket{URL: m.line.HTTPS, Hash: m.line.CA, Key: m.line.Key, MAC: m.line.MAC.String()})
	if refused := (*head.Refused)(nil); errors.As(err, &refused) && m.renewals >= maxRenewals {
		m.log.Warn("no certificate; the machine goes on by its address alone", "reason", err)
		m.stamps.put(m.client, wire.Step{Step: wire.StepEnrol, Error: err.Error()})
		return nil
	}
	if err != nil {
		return m.refused(ctx, err)
	}
	m.setClock(now)
	m.id = id
	m.client = head.New(m.line.HTTPS, m.dialer, id.TLS())
	return id.Save(root.State)
}

// ownKey gives the private key that is made while the network comes up.
func (m *machine) ownKey() (*identity.Key, error) {
	select {
	case key := <-m.key:
		m.key <- key // another attempt asks for the same certificate
		if key != nil {
			return key, nil
		}
	case <-time.After(driverTime):
		m.log.Warn("drivers are still being loaded, the boot goes on")
	}
	return identity.NewKey()
}

// refused gets a new one-time key where the head took the old one no more,
// because it was away for longer than a key lives; the step is tried again
// with it. It gives the error that it got.
func (m *machine) refused(ctx context.Context, err error) error {
	refused := (*head.Refused)(nil)
	if !errors.As(err, &refused) || refused.Status != http.StatusForbidden || m.line.Key == "" {
		return err
	}
	m.renewals++
	if renewErr := m.renew(ctx); renewErr != nil {
		return fmt.Errorf("%w; and there is no new key: %w", err, renewErr)
	}
	return fmt.Errorf("%w; trying again with a new key", err)
}

var keyOnLine = regexp.MustCompile(`\b` + regexp.QuoteMeta(wire.CmdlineKey) + `=([A-Za-z0-9_-]{16,128})`)

// renew begins a new boot in the head's eyes, as firmware would: an exchange by
// DHCP, and then the script that holds the key.
func (m *machine) renew(ctx context.Context) error {
	if err := m.lease.Announce(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, maxDelay)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(m.line.Head, "/")+wire.PathGo, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: m.dialer.Transport(nil)}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	script, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	found := keyOnLine.FindSubmatch(script)
	if found == nil {
		return errors.New("the head's boot script has none")
	}
	m.line.Key = string(found[1])
	return nil
}
