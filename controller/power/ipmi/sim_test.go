package ipmi

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/controller/power/bmc"
)

// chassisScript is what ipmi_sim runs to look at and to turn its machine's power,
// which a file stands for.
const chassisScript = `#!/bin/sh
cd "${0%/*}" || exit 1
op=$1; shift
case $op in
get) [ -e on ] && echo power:1 || echo power:0 ;;
set)
	echo "$*" >>log
	case "$1 $2" in
	"power 1") : >on ;;
	"power 0" | "shutdown 1") rm -f on ;;
	esac ;;
esac
`

const lan = `name "sim"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 %d
    priv_limit admin
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "%s/chassis"
  user 1 true  ""      "none"        user  10 none md2 md5 straight
  user 2 true  "admin" "p@s:s/%%"     admin 10 none md2 md5 straight
`

const emulator = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
`

// simulator starts OpenIPMI's BMC and gives the directory of its machine and
// its port.
func simulator(t *testing.T) (dir string, port int) {
	t.Helper()
	program, err := exec.LookPath("ipmi_sim")
	if err != nil {
		t.Fatal("ipmi_sim is not installed (package openipmi)")
	}
	dir = t.TempDir()
	probe, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = probe.LocalAddr().(*net.UDPAddr).Port
	probe.Close()
	for name, text := range map[string]string{
		"chassis": chassisScript, "lan.conf": fmt.Sprintf(lan, port, dir), "emu": emulator,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "-c", filepath.Join(dir, "lan.conf"), "-f", filepath.Join(dir, "emu"), "-s", dir, "-n")
	in, err := cmd.StdinPipe() // it ends when its input does
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return dir, port
}

// target is the simulator with the suite that it has: asking it which it has
// takes seconds, as it does not answer that.
func target(port int, password string) bmc.Target {
	return bmc.Target{Scheme: "ipmi", Host: "127.0.0.1", Port: strconv.Itoa(port), User: "admin", Password: password,
		Options: url.Values{"cipher": {"3"}}}
}

// TestRealPackets switches a machine through OpenIPMI's BMC.
func TestRealPackets(t *testing.T) {
	dir, port := simulator(t)
	m, err := Scheme{}.Open(t.Context(), target(port, "p@s:s/%"))
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		m, err = Scheme{}.Open(t.Context(), target(port, "p@s:s/%")) // nothing tells when it listens
	}
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := (Scheme{}).Open(t.Context(), target(port, "wrong")); !errors.Is(err, bmc.ErrDenied) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong password: %v", err)
	}
	is := func(want bmc.State) {
		t.Helper()
		if got, err := m.State(t.Context()); got != want || err != nil {
			t.Errorf("the machine is %v, %v, want %v", got, err, want)
		}
	}
	is(bmc.Off)
	for _, step := range []struct {
		do   bmc.Action
		then bmc.State
	}{{bmc.PowerOn, bmc.On}, {bmc.Reset, bmc.On}, {bmc.SoftOff, bmc.Off}, {bmc.PowerOn, bmc.On}, {bmc.HardOff, bmc.Off}} {
		if err := m.Do(t.Context(), step.do); err != nil {
			t.Errorf("%v: %v", step.do, err)
		}
		is(step.then)
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if want := "power 1\nreset 1\nshutdown 1\npower 1\npower 0\n"; err != nil || string(log) != want {
		t.Errorf("its chassis was told %q (%v), want %q", log, err, want)
	}
}
