package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/agent/apply"
	"muster/agent/overlay"
	"muster/agent/root"
	"muster/shared/wire"
)

// stopTime is how long commands and the last stamps may take when the image
// takes over.
const stopTime = 3 * time.Second

// become asks what the machine shall be and makes it that. It returns only
// with an error, and is then called again, to get an answer that may be new.
func (m *machine) become(ctx context.Context) error {
	m.rescue(ctx)
	plan, err := m.client.Boot(ctx, m.line.Config, m.line.Image)
	if err != nil {
		return err
	}
	if plan.Image == nil || plan.Problem != "" {
		return fmt.Errorf("there is nothing to boot: %s", plan.Problem)
	}
	if m.id.Cert == nil {
		m.setClock(plan.Time)
	}
	if err := root.Known(root.Of(plan)); err != nil {
		return &failure{wire.StepRoot, err}
	}
	if root.Of(plan) == root.StyleDisked {
		return m.disked(ctx, plan)
	}
	m.stopBefore(ctx, wire.StepImage)
	if written, err := m.writeFiles(ctx, plan); err != nil {
		return err
	} else if written {
		m.stopBefore(ctx, wire.StepRoot)
		return &failure{wire.StepRoot, m.goThere(ctx, plan, time.Now())}
	}
	image, err := m.source(ctx, plan)
	if err != nil {
		return err
	}
	defer image.Close()
	m.stopBefore(ctx, wire.StepRoot)
	return &failure{wire.StepRoot, m.makeRoot(ctx, plan, image)}
}

// source gives what the root is made of: the image's file, or a device from
// which it can be read while it is fetched.
func (m *machine) source(ctx context.Context, plan wire.Boot) (*os.File, error) {
	if root.Of(plan) == root.StyleISCSI {
		if plan.Target == nil {
			return nil, errors.New("the head names no iSCSI target: it is older than this agent")
		}
		if !m.canStream() {
			return nil, errors.New("the boot style iscsi needs the kernel's network block devices, and the boot archive has no module nbd")
		}
		return m.streamed(ctx, *plan.Image, plan.Target)
	}
	if root.Of(plan) == root.StyleRORAM && plan.Image.Pieces != "" && m.canStream() {
		return m.streamed(ctx, *plan.Image, nil)
	}
	m.endStream()
	return m.image(ctx, *plan.Image)
}

// image gives the image's file: the one that is there from an earlier attempt,
// where that is whole and the same, or one that is pulled now. A step that
// fails on many machines must not make each of them pull again and again.
func (m *machine) image(ctx context.Context, want wire.Image) (*os.File, error) {
	if m.pulled == want.SHA256 {
		if file, err := root.Initramfs.KeptImage(want.Size); err == nil {
			return file, nil
		}
	}
	m.pulled = ""
	file, err := root.Initramfs.ImageFile()
	if err != nil {
		return nil, err
	}
	if err := m.fetch(ctx, want, file); err != nil {
		file.Close()
		return nil, err
	}
	m.pulled = want.SHA256
	m.hasImage(want, fmt.Sprintf("%s, %d bytes", want.Name, want.Size))
	return file, nil
}

// hasImage tells the head which version the machine has.
func (m *machine) hasImage(image wire.Image, detail string) {
	m.stamps.put(m.client, wire.Step{Step: wire.StepImage, Detail: detail, Image: image.Digest})
}

// rescue holds the boot where the command line asks for a shell: here, by
// muster shell, and on the console.
func (m *machine) rescue(ctx context.Context) {
	if m.line.Stop != wire.StopRescue {
		return
	}
	m.line.Stop = "" // once
	m.rest()
	m.log.Info("rescue: a shell is here and by `muster shell`; `resume` boots on")
	m.stamps.put(m.client, wire.Step{Step: wire.StepAgent, Detail: wire.DetailRescue})
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for ctx.Err() == nil {
			m.consoleShell(ctx)
		}
	}()
	select {
	case <-ctx.Done():
	case <-m.resume:
	}
}

// stopBefore holds the boot where the command line says so.
func (m *machine) stopBefore(ctx context.Context, step string) {
	if m.line.Stop != step {
		return
	}
	m.line.Stop = "" // once
	m.fail(step, fmt.Errorf("stopped before it by %s=%s; `resume` on the machine lets it go on", wire.CmdlineStop, step))
	select {
	case <-ctx.Done():
	case <-m.resume:
	}
	m.hold("")
}

// makeRoot makes the root and goes there. If it returns, it is with an error.
func (m *machine) makeRoot(ctx context.Context, plan wire.Boot, image *os.File) error {
	m.awaitModules()
	style := root.Of(plan)
	if m.modules != nil {
		if err := m.modules.Load(root.Needs(style)...); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := root.Initramfs.Build(style, image); err != nil {
		return err
	}
	return m.goThere(ctx, plan, began)
}

// goThere makes the root that is there this node's, and leaves for it.
func (m *machine) goThere(ctx context.Context, plan wire.Boot, began time.Time) error {
	m.awaitModules()
	style := root.Of(plan)
	agent, init, err := m.furnish(ctx, plan, root.Initramfs.New)
	if err != nil {
		root.Initramfs.Drop()
		return err
	}
	m.log.Info("root is ready", "style", style, "took", time.Since(began).Round(time.Millisecond).String(), "init", init.Path)
	m.stamps.put(m.client, wire.Step{Step: wire.StepRoot, Detail: style})
	m.stamps.flush(stopTime)
	return m.leave(plan, agent, init)
}

// awaitModules waits for what every boot needs.
func (m *machine) awaitModules() {
	select {
	case err := <-m.common:
		if err != nil {
			m.log.Warn("modules", "error", err)
		}
		m.common <- nil // for another attempt
	case <-time.After(driverTime):
		m.log.Warn("modules are still being loaded, the boot goes on")
	}
}

// furnish makes the image this node, with the agent in it.
func (m *machine) furnish(ctx context.Context, plan wire.Boot, newroot string) (root.Agent, root.Init, error) {
	init, err := root.FindInit(newroot)
	if err != nil {
		return root.Agent{}, init, err
	}
	n := root.Network{Interface: m.lease.Interface, MAC: m.lease.MAC.String(), Address: m.lease.Address, DNS: m.lease.DNS, Domain: m.lease.Domain}
	if err := root.Prepare(newroot, "/run", plan, n); err != nil {
		return root.Agent{}, init, fmt.Errorf("preparing the image: %w", err)
	}
	if err := apply.Booted(newroot, *plan.Image, root.Prepared()); err != nil {
		m.log.Warn("the version of the image is not noted, so that it cannot be changed while it runs", "error", err)
	}
	if err := m.ownFiles(ctx, newroot); err != nil {
		return root.Agent{}, init, err
	}
	if err := m.lease.Keep(root.State); err != nil {
		return root.Agent{}, init, err
	}
	agent, err := root.Install(newroot, "/run", "/proc/self/exe", []string{"run", "--head", m.url(), "--state", root.State})
	if err == nil && init.Systemd {
		err = agent.Unit("/run")
	}
	return agent, init, err
}

// ownFiles puts the node's own files into the root. One that cannot be made
// stops no boot: the agent tells of it once it runs.
func (m *machine) ownFiles(ctx context.Context, newroot string) error {
	all, err := m.client.Files(ctx)
	if err != nil {
		return fmt.Errorf("the node's own files: %w", err)
	}
	_, err = overlay.New(overlay.Config{Root: newroot, Log: m.log}).Take(all)
	return err
}

// leave ends everything that is of the initramfs and starts the image's init.
func (m *machine) leave(plan wire.Boot, agent root.Agent, init root.Init) error {
	m.linked()
	ended := make(chan struct{})
	go func() { m.linking.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(stopTime):
		m.log.Warn("commands of the initramfs are left running")
	}
	os.Remove("/run/muster/resume")
	os.WriteFile("/proc/sys/kernel/panic", []byte("0"), 0)
	if plan.Name != "" {
		unix.Sethostname([]byte(plan.Name))
	}
	if m.flow != nil {
		m.flow.Detach()
	}
	m.log.Info("starting the image's " + init.Path)
	m.console.Flush(time.Second)
	env := []string{"TERM=linux", "HOME=/", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	err := root.Switch(root.Initramfs.New, init, env, func() error {
		if init.Systemd {
			return nil
		}
		return agent.Detach()
	})
	// There is no way back to a step that could be tried again.
	m.log.Error("the image does not start", "error", err)
	m.standStill()
	return err
}

// consoleShell runs a shell on the console and returns when it ends, or with
// ctx.
func (m *machine) consoleShell(ctx context.Context) {
	tty, err := os.OpenFile("/dev/console", os.O_RDWR, 0)
	if err != nil {
		time.Sleep(maxDelay)
		return
	}
	defer tty.Close()
	cmd := exec.CommandContext(ctx, "/init")
	cmd.Args = []string{"-sh"}
	cmd.Env = []string{"PATH=/bin", "HOME=/", "TERM=linux"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := m.commands.Run(cmd); err != nil && !errors.As(err, new(*exec.ExitError)) {
		m.log.Warn("no shell on the console", "error", err)
	}
}
