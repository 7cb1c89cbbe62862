package power

import (
	"context"
	"fmt"
	"strings"
	"time"

	"muster/controller/power/bmc"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// shutdownCommand is what the agent runs: each system has at least one of them.
const (
	shutdownCommand = "shutdown -h now || systemctl poweroff || poweroff"
	rebootCommand   = "shutdown -r now || systemctl reboot || reboot"
)

// pollEvery is how often a BMC is asked whether it has happened; onTime is how
// long that may take for what is not a shutdown.
const (
	pollEvery = 400 * time.Millisecond
	onTime    = 6 * time.Second
)

// switching is one order at one node.
type switching struct {
	*Power
	node    *object.Node
	targets []bmc.Target
	order   order
	by      string
	step    func(name string) // told before each step
}

// run does it, and gives the step that did.
func (s *switching) run(ctx context.Context) (string, error) {
	if len(s.targets) == 0 {
		return s.alone(ctx)
	}
	switch s.order.action {
	case bmc.HardOff, bmc.SoftOff:
		return s.off(ctx)
	case bmc.PowerOn:
		return s.on(ctx, bmc.PowerOn)
	}
	state, err := s.asked(ctx, s.order.retries)
	if err != nil {
		return "", err
	}
	switch {
	case s.order.action == bmc.Reset && state == bmc.Off:
		return "", fault.New(fault.Conflict, "The node %s is off, so it cannot be reset; switch it on.", s.node.Name)
	case state == bmc.Off:
		return s.on(ctx, bmc.PowerOn)
	case s.order.action == bmc.Cycle && !s.order.Force && !s.order.forced:
		if step, err := s.off(ctx); err != nil {
			return step, err
		}
		return s.on(ctx, bmc.PowerOn)
	}
	return s.on(ctx, s.order.action)
}

// on does an action after which the node has to be on.
func (s *switching) on(ctx context.Context, a bmc.Action) (string, error) {
	s.step(string(a))
	if err := s.do(ctx, a); err != nil {
		return "", err
	}
	return string(a), s.await(ctx, bmc.On, onTime)
}

// do sends an order to the BMC. One that got no answer may have been followed:
// on and off are sent again where that did not happen, a reset or cycle never,
// nor what presses a running system's button.
func (s *switching) do(ctx context.Context, a bmc.Action) error {
	want, again := map[bmc.Action]bmc.State{bmc.PowerOn: bmc.On, bmc.HardOff: bmc.Off}[a]
	retries := 0
	if again {
		retries = s.order.retries
	}
	tried := false
	return s.patiently(ctx, retries, func(ctx context.Context) error {
		if tried {
			if state, err := s.state(ctx, s.node); err != nil || state == want {
				return err
			}
		}
		tried = true
		return s.at(ctx, s.node, s.targets, ordering, func(ctx context.Context, m bmc.Machine) error { return m.Do(ctx, a) })
	})
}

// asked is the node's state, within the time that the order gives its BMC.
func (s *switching) asked(ctx context.Context, retries int) (state bmc.State, err error) {
	err = s.patiently(ctx, retries, func(ctx context.Context) (err error) {
		state, err = s.state(ctx, s.node)
		return err
	})
	return state, err
}

func (s *switching) patiently(ctx context.Context, retries int, fn func(context.Context) error) error {
	each := s.order.answer
	if each == 0 {
		each = time.Duration(len(s.targets)) * callTime
	}
	return again(ctx, retries, each, fn)
}

// await returns when the BMC says that it has happened. It may be silent for a
// moment, as some are while they switch.
func (s *switching) await(ctx context.Context, want bmc.State, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var last error
	state := bmc.Unknown
	for {
		now, err := s.state(ctx, s.node)
		if err == nil && now == want {
			return nil
		}
		if ctx.Err() == nil {
			state, last = now, err
		}
		select {
		case <-ctx.Done():
			if last != nil {
				return last
			}
			return fault.New(fault.Timeout, "The BMC of node %s took the order, but says %s after %v.", s.node.Name, state, d.Round(time.Second))
		case <-time.After(pollEvery):
		}
	}
}

// off takes the node down, step by step until it is.
func (s *switching) off(ctx context.Context) (string, error) {
	state, err := s.asked(ctx, 0) // where it does not answer the steps go on
	if err == nil && state == bmc.Off {
		return "already off", nil
	}
	var tried []string
	steps := s.order.off()
	for _, st := range steps {
		s.step(st.Step)
		if err = s.attempt(ctx, st); err == nil {
			return st.Step, nil
		}
		if ctx.Err() != nil {
			return "", err
		}
		tried = append(tried, st.Step+": "+strings.TrimSuffix(fault.Of(err).Reason, "."))
	}
	return "", fault.New(fault.Of(err).Code, "The node %s could not be switched off; %s.", s.node.Name, strings.Join(tried, "; "))
}

func (s *switching) attempt(ctx context.Context, st step) error {
	switch st.Step {
	case stepAgent:
		if err := s.shutdown(ctx, shutdownCommand, st.time()); err != nil {
			return err
		}
	case stepSoft:
		if err := s.do(ctx, bmc.SoftOff); err != nil {
			return err
		}
		return s.await(ctx, bmc.Off, st.time())
	case stepHard:
		if err := s.do(ctx, bmc.HardOff); err != nil {
			return err
		}
		return s.await(ctx, bmc.Off, st.time())
	}
	return nil
}

// shutdown has the agent run the command, and waits until the node is down.
func (s *switching) shutdown(ctx context.Context, command string, d time.Duration) error {
	if s.node.Type == "simulated" {
		return fault.New(fault.Conflict, "it is a simulated node: its system is somebody else's")
	}
	if !s.Agents.Connected(s.node.UID) {
		return fault.New(fault.Conflict, "its agent is not connected")
	}
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if err := s.Agents.Run(limited, s.node.UID, s.by, command); err != nil && limited.Err() == nil {
		return fault.New(fault.Conflict, "its agent could not do it: %s", bmc.Clean(err.Error()))
	}
	if len(s.targets) > 0 {
		return s.await(limited, bmc.Off, d)
	}
	for s.Agents.Connected(s.node.UID) {
		select {
		case <-limited.Done():
			return fault.New(fault.Timeout, "its agent is still connected after %v", d)
		case <-time.After(pollEvery):
		}
	}
	return nil
}

// alone is what can be done without a BMC.
func (s *switching) alone(ctx context.Context) (string, error) {
	command := shutdownCommand
	switch s.order.action {
	case bmc.PowerOn:
		return "", fault.New(fault.Conflict, "The node %s has no BMC to switch it on: muster node update %s --power-uri ipmi://USER:PASSWORD@ADDRESS/", s.node.Name, s.node.Name)
	case bmc.Cycle, bmc.Reset:
		command = rebootCommand
	}
	if s.order.Force {
		return "", fault.New(fault.Conflict, "The node %s has no BMC, and force leaves its agent out.", s.node.Name)
	}
	s.step(stepAgent)
	d := time.Duration(defaultTime(stepAgent)) * time.Second
	for _, st := range s.order.steps {
		if st.Step == stepAgent {
			d = st.time()
		}
	}
	if err := s.shutdown(ctx, command, d); err != nil {
		return "", fault.New(fault.Of(err).Code, "The node %s has no BMC, and %s.", s.node.Name, fault.Of(err).Reason)
	}
	return stepAgent, nil
}

// job is an order under way.
type job struct {
	cancel context.CancelFunc
	done   chan struct{}
	text   string
	since  time.Time

	at   string // the step, under Power.mu
	step string // what did it, once done
	err  error
}

// maxJob bounds an order in all.
const maxJob = maxSteps*maxStepTime*time.Second + time.Minute

// start begins an order at a node, which goes on when the request ends: half a
// shutdown is none. There is one at a time; one with force ends another. What is
// begun is in the audit trail before, and what is refused is not.
func (p *Power) start(ctx context.Context, n *object.Node, by kind.Author, o order) (*job, error) {
	targets, err := p.targets(n)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	old := p.busy[n.UID]
	if old != nil && !o.Force {
		defer p.mu.Unlock()
		return nil, fault.New(fault.Conflict, "The node %s is being switched (%s, since %s, at the step %s); wait, or use force.", n.Name, old.text, old.since.Format(time.TimeOnly), old.at)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxJob)
	j := &job{cancel: cancel, done: make(chan struct{}), text: string(o.action), since: time.Now()}
	if p.busy == nil {
		p.busy = map[string]*job{}
	}
	p.busy[n.UID] = j
	p.mu.Unlock()
	if err := p.note(ctx, by, n, o); err != nil {
		cancel()
		j.err = err
		p.leave(n, j, old)
		return nil, err
	}
	s := &switching{Power: p, node: n, targets: targets, order: o, by: by.Name, step: func(name string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		j.at = name
	}}
	go func() {
		defer cancel()
		if old != nil {
			old.cancel()
			<-old.done
		}
		j.step, j.err = s.run(ctx)
		p.finished(n, by.Name, o, j)
		p.leave(n, j, nil)
	}()
	return j, nil
}

// leave makes room for the next job, or for one that j did not end after all.
func (p *Power) leave(n *object.Node, j, old *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(j.done)
	if p.busy[n.UID] != j {
		return
	}
	delete(p.busy, n.UID)
	if old == nil {
		return
	}
	select {
	case <-old.done:
	default:
		p.busy[n.UID] = old
	}
}

func (p *Power) finished(n *object.Node, by string, o order, j *job) {
	if j.err != nil {
		p.Log.Warn("power", "node", n.Name, "admin", by, "order", o.action, "force", o.Force, "error", fault.Of(j.err).Reason)
		return
	}
	p.Log.Info("power", "node", n.Name, "admin", by, "order", o.action, "force", o.Force, "step", j.step)
}

// underWay is the answer about a job that has not ended in time.
func (p *Power) underWay(n *object.Node, j *job) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fault.New(fault.Timeout, "%s", fmt.Sprintf("The node %s is not there yet, after %.0f s at the step %s. The head goes on with it: ask for its power_state.", n.Name, time.Since(j.since).Seconds(), j.at))
}
