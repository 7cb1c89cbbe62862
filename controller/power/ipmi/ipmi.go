// Package ipmi switches machines by IPMI over LAN, versions 2.0 (RMCP+) and
// 1.5: ipmi://USER:PASSWORD@HOST[:PORT]/, with the options cipher (a suite's
// number; otherwise the best that the BMC offers), interface (lanplus or lan)
// and privilege (administrator, operator, user).
//
// It speaks the protocol itself: thousands of BMCs would mean thousands of
// ipmitool processes. It must not trust a length, a number or a text that
// comes from a BMC.
package ipmi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/command/chassis"
	"github.com/bougou/go-ipmi/pkg/types"

	"muster/controller/power/bmc"
)

// Resending: a datagram may be lost on the way. One that never answered is dead
// soon; one with a session may be slow, and has all the time that its caller has.
const (
	answerTime  = time.Second
	resends     = 2
	resendsOpen = 12
)

// DefaultPort is RMCP's.
const DefaultPort = "623"

// Bounds of user names and passwords, in bytes (IPMI 2.0 §13.24, §22.30).
const (
	maxUser     = 16
	maxPassword = 20
)

// Scheme is ipmi://.
type Scheme struct{}

// Open makes a session.
func (Scheme) Open(ctx context.Context, t bmc.Target) (bmc.Machine, error) {
	if err := check(t); err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(bmc.Or(t.Port, DefaultPort), 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("%q is no port", t.Port)
	}
	c, err := client.NewClient(t.Host, int(port), t.User, t.Password)
	if err != nil {
		return nil, errors.New("the user name is too long")
	}
	c.WithTimeout(answerTime).WithRetry(resends)
	if err := configure(c, t); err != nil {
		return nil, err
	}
	c.WithUDPProxy(dialer{ctx, net.JoinHostPort(t.Host, strconv.Itoa(int(port)))})
	m := &machine{c: c}
	if err := m.call(func() error { return c.Connect(ctx) }); err != nil {
		m.abandon()
		return nil, explain(ctx, err)
	}
	c.WithRetry(resendsOpen)
	return m, nil
}

func check(t bmc.Target) error {
	switch {
	case t.Transport != "":
		return fmt.Errorf("ipmi+%s:// does not exist, only ipmi://", t.Transport)
	case t.Host == "":
		return errors.New("it has no address: ipmi://USER:PASSWORD@ADDRESS/")
	case len(t.User) > maxUser:
		return fmt.Errorf("its user name has %d bytes, IPMI allows %d", len(t.User), maxUser)
	case len(t.Password) > maxPassword:
		return fmt.Errorf("its password has %d bytes, IPMI allows %d", len(t.Password), maxPassword)
	}
	return t.Only("cipher", "interface", "privilege")
}

func configure(c *client.Client, t bmc.Target) error {
	switch v := t.Option("interface", "lanplus"); v {
	case "lanplus":
	case "lan":
		c.WithInterface(client.InterfaceLan)
	default:
		return fmt.Errorf("interface %q is neither lanplus nor lan", v)
	}
	if v := t.Option("cipher", ""); v != "" {
		n, err := strconv.ParseUint(v, 10, 8)
		if err != nil || n > 17 {
			return fmt.Errorf("cipher %q is no suite from 0 to 17", v)
		}
		c.WithCipherSuiteID(types.CipherSuiteID(n))
	}
	switch v := t.Option("privilege", "administrator"); v {
	case "administrator":
		c.WithMaxPrivilegeLevel(types.PrivilegeLevelAdministrator)
	case "operator":
		c.WithMaxPrivilegeLevel(types.PrivilegeLevelOperator)
	case "user":
		c.WithMaxPrivilegeLevel(types.PrivilegeLevelUser)
	default:
		return fmt.Errorf("privilege %q is none of administrator, operator, user", v)
	}
	return nil
}

// machine is a session.
type machine struct{ c *client.Client }

// call holds a panic in the parser of what a BMC sent to this BMC.
func (m *machine) call(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("the BMC's answer is no IPMI")
		}
	}()
	return fn()
}

// explain says what an error of the library means to an admin.
func explain(ctx context.Context, err error) error {
	var code *types.ResponseError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case contains(err, "timed out", "i/o timeout") && !contains(err, "rakp3"): // where some BMCs say no by silence
		return fmt.Errorf("no answer: %w", context.DeadlineExceeded)
	case errors.Is(err, client.ErrRAKPAuthentication), contains(err, "unauthorized", "RAKP", "rakp", "username", "privilege"):
		return fmt.Errorf("%w (%s)", bmc.ErrDenied, bmc.Clean(err.Error()))
	case errors.As(err, &code) && (code.CompletionCode() == 0xc1 || code.CompletionCode() == 0xd5 || code.CompletionCode() == 0xcc):
		return fmt.Errorf("%w by this BMC: %s", bmc.ErrUnsupported, bmc.Clean(code.Error()))
	case contains(err, "timeout", "deadline", "no datagram", "no matching"):
		return fmt.Errorf("no answer: %w", context.DeadlineExceeded)
	case contains(err, "refused"):
		return errors.New("nothing listens there (connection refused)")
	case contains(err, "no such host"):
		return errors.New("no such host; mind the address")
	}
	return errors.New(bmc.Clean(err.Error()))
}

func (m *machine) do(ctx context.Context, fn func() error) error {
	if err := m.call(fn); err != nil {
		return explain(ctx, err)
	}
	return nil
}

// State implements bmc.Machine.
func (m *machine) State(ctx context.Context) (bmc.State, error) {
	state := bmc.Off
	err := m.do(ctx, func() error {
		s, err := m.c.GetChassisStatus(ctx)
		if err == nil && s.PowerIsOn {
			state = bmc.On
		}
		return err
	})
	if err != nil {
		return bmc.Unknown, err
	}
	return state, nil
}

// Do implements bmc.Machine.
func (m *machine) Do(ctx context.Context, a bmc.Action) error {
	control, ok := map[bmc.Action]chassis.ChassisControl{
		bmc.PowerOn: chassis.ChassisControlPowerUp, bmc.HardOff: chassis.ChassisControlPowerDown, bmc.SoftOff: chassis.ChassisControlSoftShutdown,
		bmc.Cycle: chassis.ChassisControlPowerCycle, bmc.Reset: chassis.ChassisControlHardReset,
	}[a]
	if !ok {
		return bmc.ErrUnsupported
	}
	return m.do(ctx, func() error {
		_, err := m.c.ChassisControl(ctx, control)
		return err
	})
}

// closeTime bounds the farewell.
const closeTime = time.Second

// Close implements bmc.Machine.
func (m *machine) Close() {
	m.c.WithRetry(0)
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	m.call(func() error { return m.c.Close(ctx) }) // the session ends anyhow when nothing comes for a minute
}

// abandon lets go of a session that never was.
func (m *machine) abandon() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m.call(func() error { return m.c.Close(ctx) })
}
