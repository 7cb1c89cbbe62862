package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"muster/scripts/lab"
)

// powered gives a node the URI of its machine's BMC. The credentials, which have
// in them what a URI is made of, come from the attributes of all nodes.
func (b *bench) powered(t *testing.T, node string, uri func(credentials string) string) {
	t.Helper()
	b.muster(t, "attrib", "attributes", "DefaultAttribs", "set", "_bmc_user="+lab.BMCUser, "_bmc_pass="+lab.BMCPassword)
	b.muster(t, "node", "update", node, "--power-uri", uri("<_bmc_user>:<_bmc_pass>"))
}

// power switches a node by its BMC and wants it to have ended as said.
func (b *bench) power(t *testing.T, node, verb, end string, flags ...string) {
	t.Helper()
	if got := b.muster(t, append([]string{"power", verb, "-n", node}, flags...)...); !strings.HasPrefix(got, node+": "+end) {
		t.Errorf("muster power %s says %q, wanted %s", verb, got, end)
	}
}

// panicAndRecovery: a kernel dies. Its last line comes over the serial line of
// the BMC and is the reason why the node failed; the head's policy takes the
// machine's power away for a moment, by IPMI, and the machine comes up again,
// with the boot style that it has now: all of the image in RAM, writable.
func (b *bench) panicAndRecovery(t *testing.T) {
	node := b.biosNode
	b.muster(t, "bootconfig", "create", "Writable", "--image", "DefaultImage", "--boot-style", "rwram",
		"--kernel", b.Assets.Kernel, "--modules", b.Assets.Modules, "--cmdline", toAgent)
	b.set(t, node, "_boot_config=Writable")
	b.listens(t, node)
	before := b.lastBoot(node)
	if _, err := b.Head.CLI(b.ctx, "exec", "-n", node, "--", "echo c > /proc/sysrq-trigger"); err == nil {
		t.Error("a command outlived the kernel")
	}
	const panicked = "Kernel panic - not syncing: sysrq triggered crash"
	died := b.await(t, node, before-1, "the panic", func(s step) bool { return s.Step == "console" })
	if died.Boot != before || !strings.HasSuffix(died.Error, panicked) {
		t.Errorf("the timeline says %q in boot %d, wanted %q in boot %d", died.Error, died.Boot, panicked, before)
	}
	var got struct {
		Status struct{ State, Reason string }
	}
	if err := b.Head.JSON(b.ctx, &got, "node", "get", node); err != nil {
		t.Fatal(err)
	}
	if got.Status.State != "failed" || !strings.Contains(got.Status.Reason, panicked) {
		t.Errorf("the node is %q because of %q", got.Status.State, got.Status.Reason)
	}
	if log := b.muster(t, "console", node, "--log"); !strings.Contains(log, panicked) {
		t.Error("the console's log lacks the panic")
	}
	b.power(t, node, "status", "on")
	b.set(t, node, "_recover_attempts=1", "_recover_secs=4")
	b.await(t, node, before-1, "the recovery", func(s step) bool { return s.Step == "recover" && strings.Contains(s.Detail, panicked) })
	// Enough: on a busy host its boot takes longer than a policy so impatient allows.
	b.muster(t, "node", "attributes", node, "rm", "_recover_attempts", "_recover_secs")
	b.awaitUp(t, node, before)
	b.checkSteps(t, node)
	b.checkRoot(t, node, "tmpfs")
	b.muster(t, "node", "attributes", node, "rm", "_boot_config")
}

// listens waits until the head hears what a machine says on its serial line: a
// busy BMC ends the session now and then, and the head begins another.
func (b *bench) listens(t *testing.T, node string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		word := fmt.Sprintf("it is %d", time.Now().UnixNano())
		b.exec(t, node, "echo "+word+" > /dev/ttyS0")
		if strings.Contains(b.muster(t, "console", node, "--log"), word) {
			return
		}
	}
	t.Fatalf("the head does not hear the console of %s", node)
}

// switchedOff: power is lost in the middle of the image and comes back, by
// Redfish both. The next boot is one into the rescue shell, which boots on.
func (b *bench) switchedOff(t *testing.T) {
	node := b.uefiNode
	before := b.lastBoot(node)
	b.power(t, node, "cycle", "on", "--force")
	b.await(t, node, before, "the image", func(s step) bool { return s.Step == "image" })
	b.power(t, node, "off", "off", "--force")
	b.muster(t, "node", "boot", node, "--rescue")
	before = b.lastBoot(node)
	b.power(t, node, "on", "on")
	b.await(t, node, before, "the rescue shell", func(s step) bool { return s.Detail == "rescue shell" })
	b.exec(t, node, "resume")
	b.awaitUp(t, node, before)
	b.checkExec(t, node)
	if got := b.muster(t, "node", "attributes", node); strings.Contains(got, "_boot_once") {
		t.Errorf("what was to be booted once stays: %s", got)
	}
}
