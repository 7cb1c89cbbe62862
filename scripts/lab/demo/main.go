// Demo shows the whole of muster in a few minutes: a head and two bare
// machines, one with a BIOS and one with UEFI, in a network of their own. The
// machines are switched on through their BMCs, get their image and run a
// command. Every command that an admin would type is printed.
//
// It must do nothing that an admin could not do, and it leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"muster/scripts/lab"
)

func main() {
	keep := flag.Bool("keep", false, "leave the cluster up until Ctrl-C")
	program := flag.String("muster", "bin/muster", "the program to show")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := demo(ctx, *program, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, program string, keep bool) (err error) {
	say("what the machines will boot, kept outside of the repository")
	c, err := lab.NewCluster(ctx, lab.Options{
		Program: program, Cache: os.Getenv("MUSTER_LAB_CACHE"),
		Log: slog.New(slog.NewTextHandler(os.Stdout, nil)),
	})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, c.Tails(40))
		}
		say("clearing away")
		err = errors.Join(err, c.Close())
	}()
	muster := func(args ...string) error { return show(ctx, c, args...) }

	say("a new head is told what it needs to know")
	if err := c.Setup(muster); err != nil {
		return err
	}
	say("two bare machines (" + c.Accel + "), of which the head knows a MAC and a BMC: one by IPMI, one by Redfish")
	if err := buy(ctx, c, muster); err != nil {
		return err
	}
	if err := muster("power", "on", "-n", "n[0-1]"); err != nil {
		return err
	}
	if err := muster("wait", "-n", "n[0-1]", "up", "--timeout", "5m"); err != nil {
		return err
	}
	for _, command := range [][]string{
		{"node", "ls"},
		{"power", "status", "-n", "n[0-1]"},
		{"boot", "log", "n0"},
		{"boot", "log", "n1"},
		{"exec", "-n", "n0", "--", "uname", "-a"},
		{"exec", "-n", "n1", "--", "uname", "-a"},
		{"console", "n0", "--lines", "5"},
	} {
		if err := muster(command...); err != nil {
			return err
		}
	}
	if keep {
		stay(ctx, c)
	}
	return nil
}

// buy plugs machines in and tells the head of them. The credentials of the
// BMCs are attributes, which every node inherits.
func buy(ctx context.Context, c *lab.Cluster, muster func(args ...string) error) error {
	const credentials = "<_bmc_user>:<_bmc_pass>"
	if err := muster("attrib", "attributes", "DefaultAttribs", "set", "_bmc_user="+lab.BMCUser, "_bmc_pass="+lab.BMCPassword); err != nil {
		return err
	}
	for _, machine := range []struct {
		spec lab.Spec
		uri  func(*lab.BMC) string
	}{
		{lab.Spec{Name: "bios", MAC: "52:54:00:77:00:01", Firmware: lab.BIOS, Disk: 1 << 30}, func(b *lab.BMC) string { return b.IPMI(credentials) }},
		{lab.Spec{Name: "uefi", MAC: "52:54:00:77:00:02", Firmware: lab.UEFI, Boot: lab.PXE, Disk: 1 << 30}, func(b *lab.BMC) string { return b.Redfish(credentials) }},
	} {
		m, err := c.Machine(ctx, machine.spec)
		if err != nil {
			return err
		}
		if err := muster("node", "create", "--mac", m.Spec.MAC, "--power-uri", machine.uri(m.BMC)); err != nil {
			return err
		}
	}
	return nil
}

// show prints a command as an admin types it on the head, and runs it.
func show(ctx context.Context, c *lab.Cluster, args ...string) error {
	fmt.Println("$ muster", strings.Join(args, " "))
	cmd := c.Head.Command(args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := lab.Run(ctx, cmd); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return fmt.Errorf("muster %s: exit status %d", args[0], exit.ExitCode())
		}
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
	fmt.Println()
	return nil
}

// stay keeps the cluster up for somebody to look around in.
func stay(ctx context.Context, c *lab.Cluster) {
	say("the cluster stays up until Ctrl-C; to look around, in another terminal:")
	fmt.Printf("  sudo ip netns exec %s env MUSTER_HEAD=%s MUSTER_DATA=%s PATH=$PWD/bin:$PATH bash\n", c.Name, c.Head.URL, c.Head.Data)
	fmt.Println("  muster shell n0")
	fmt.Printf("consoles and the head's log are in %s\n", c.Dir)
	<-ctx.Done()
}

func say(text string) { fmt.Println("==", text) }
