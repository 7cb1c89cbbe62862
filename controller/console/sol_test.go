package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const lanConf = `name "sim"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 %d
    priv_limit admin
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  sol "tcp:127.0.0.1:%d" 115200
  user 2 true "admin" "p@s:s/%%" admin 10 none md2 md5 straight
`

const emulator = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
`

// TestSerialOverLAN speaks to a machine through OpenIPMI's BMC and ipmitool.
func TestSerialOverLAN(t *testing.T) {
	program, err := exec.LookPath("ipmi_sim")
	if err != nil {
		t.Fatal("ipmi_sim is not installed (package openipmi)")
	}
	machine, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Close()
	probe, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := probe.LocalAddr().(*net.UDPAddr).Port
	probe.Close()
	dir := t.TempDir()
	for name, text := range map[string]string{"lan": fmt.Sprintf(lanConf, port, machine.Addr().(*net.TCPAddr).Port), "emu": emulator} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "-c", filepath.Join(dir, "lan"), "-f", filepath.Join(dir, "emu"), "-s", dir, "-n")
	in, err := cmd.StdinPipe() // it ends when its input does
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); cmd.Process.Kill(); cmd.Wait() }()
	target := Target{Scheme: "ipmi", Host: "127.0.0.1", Port: strconv.Itoa(port), User: "admin", Password: "p@s:s/%", Options: url.Values{"cipher": {"3"}}}
	open := func() io.ReadWriteCloser {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel() // which the session must outlive
		line, err := serialOverLAN(ctx, target)
		for ; err != nil && ctx.Err() == nil; line, err = serialOverLAN(ctx, target) {
			t.Log(err) // nothing tells when it listens
		}
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	line := open()
	if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", line.(*sol).cmd.Process.Pid)); err != nil || strings.Contains(string(args), target.Password) {
		t.Errorf("the process list shows %q, %v", args, err)
	}
	talk(t, machine, line)

	// Whoever has the console loses it to the head.
	other, err := serialOverLAN(t.Context(), target)
	if !errors.Is(err, errTaken) {
		t.Errorf("a second session: %v, %v", other, err)
	}
	other = open()
	line.Close()
	io.WriteString(other, "\r")
	other.Close() // which tells the BMC
	if other, err = serialOverLAN(t.Context(), target); err != nil {
		t.Fatalf("the session before is not ended: %v", err)
	}
	other.Close()

	target.Password = "wrong"
	if _, err := serialOverLAN(t.Context(), target); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong password: %v", err)
	}
	target.Options["cipher"] = []string{"3 -Z"}
	if _, err := serialOverLAN(t.Context(), target); err == nil || !strings.Contains(err.Error(), "no value") {
		t.Errorf("an option with another in it: %v", err)
	}
}

// talk has both sides say something, ipmitool's own escapes among it.
func talk(t *testing.T, machine net.Listener, line io.ReadWriteCloser) {
	t.Helper()
	wire, err := machine.Accept() // the BMC connects when somebody has the console
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	defer time.AfterFunc(20*time.Second, func() { line.Close(); wire.Close() }).Stop()
	const typed = "~.\x1f.\r\x1f.\r~?\r~B"
	if _, err := io.WriteString(line, "\xff"+typed); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(typed))
	if _, err := io.ReadFull(wire, got); err != nil || string(got) != typed {
		t.Errorf("the machine got %q, %v, want %q", got, err, typed)
	}
	said := strings.Repeat("a line of the machine's, with \x1b[1m\x1f~.\xff in it\r\n", 40)
	go io.WriteString(wire, said)
	in := bufio.NewReader(line)
	for i, want := range strings.SplitAfter(said, "\n") {
		if want == "" {
			break
		}
		if text, err := in.ReadString('\n'); err != nil || text != want {
			t.Fatalf("line %d is %q, %v, want %q", i, text, err, want)
		}
	}
}
