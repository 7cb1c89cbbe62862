package report

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/agent/program"
	"muster/shared/wire"
)

// direct runs programs as they are.
type direct struct{}

func (direct) Run(cmd *exec.Cmd) error { return cmd.Run() }

func write(t *testing.T, mode os.FileMode, content string, path ...string) {
	t.Helper()
	file := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
}

func attributes(pairs ...string) Settings {
	m := map[string]json.RawMessage{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]], _ = json.Marshal(pairs[i+1])
	}
	return ParseSettings(m)
}

// TestPlugins has good plugins and all kinds of bad ones; the bad ones are
// named and harm nobody.
func TestPlugins(t *testing.T) {
	dir := t.TempDir()
	for name, script := range map[string]string{
		"good":     "echo '\"jobs\": [1, 2.50],'; echo; echo '# a note'; echo '\"where\": {\"rack\": \"r1\"}'",
		"attrs":    `printf '"attributes": "%s"\n' "$TEST_ATTRIBUTES"`,
		"nojson":   "echo '\"fine\": 1'; echo 'load is high'",
		"nan":      "echo '\"temperature\": NaN'",
		"flood":    "while :; do echo '\"a\": 1'; done",
		"daemon":   "echo '\"daemon\": true'; sleep 1000 & exit 0",
		"fails":    "echo oops >&2; exit 3",
		"steals":   "echo '\"load_avg\": [9,9,9]'; echo '\"state\": \"up\"'; echo '\"mine\": 1'",
		"many":     "i=0; while [ $i -lt 300 ]; do echo \"\\\"k$i\\\": 1\"; i=$((i+1)); done",
		"writable": "echo '\"w\": 1'",
	} {
		mode := os.FileMode(0o755)
		if name == "writable" {
			mode = 0o777
		}
		write(t, mode, "#!/bin/sh\n"+script+"\n", dir, "status", name)
	}
	write(t, 0o644, "echo", dir, "status", "notexec")
	names := "default,good,attrs,nojson,nan,flood,daemon,fails,steals,many,writable,notexec,missing,../status/good"
	r := New(Config{Log: slog.New(slog.DiscardHandler), Run: direct{}, Plugins: []string{dir + "/none", dir}, Env: []string{"TEST_ATTRIBUTES=here"}})
	r.Configure(attributes("_status_plugins", names, "_status_secs", "soon"))
	r.others(t.Context(), "status")
	s := values(t, r.status)
	if fmt.Sprintf("%v %v %v %v %v", s["jobs"], s["where"], s["attributes"], s["daemon"], s["mine"]) != "[1 2.5] map[rack:r1] here true 1" {
		t.Errorf("of the good ones there is %v", s)
	}
	for _, key := range []string{"fine", "temperature", "a", "k0", "w", "state", "load_avg"} {
		if s[key] != nil {
			t.Errorf("a bad plugin has set %s to %v", key, s[key])
		}
	}
	trouble, _ := s["plugin_errors"].(map[string]any)
	for name, want := range map[string]string{
		"status/nojson": "load is high", "status/nan": "NaN", "status/flood": "cut off after 128 KiB of output", "status/fails": "exit status 3: oops",
		"status/steals": "[load_avg state]", "status/many": "at most 200 keys", "status/writable": "others may write it", "status/notexec": "not an executable",
		"status/missing": "no such plugin", "attributes": "_status_secs: \"soon\"",
	} {
		if got, _ := trouble[name].(string); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want something with %q", name, got, want)
		}
	}
	if len(trouble) != 10 || !strings.Contains(fmt.Sprint(trouble["attributes"]), "../status/good") {
		t.Errorf("in trouble are %v", trouble)
	}
	// Chosen no more, they leave nothing.
	r.Configure(attributes("_status_plugins", "load"))
	r.look(t.Context(), r.settings.Load())
	r.others(t.Context(), "status")
	var keys []string
	for key := range values(t, r.status) {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	if got := strings.Join(keys, " "); got != "agent_version boot_id load_avg time uptime" {
		t.Errorf("without plugins there are %s", got)
	}
}

// TestHangingPlugin ends with what the plugin started.
func TestHangingPlugin(t *testing.T) {
	dir := t.TempDir()
	write(t, 0o755, "#!/bin/sh\nsleep 1000 & echo $! > "+dir+"/child\nwait\n", dir, "hang")
	got := program.Run(t.Context(), direct{}, program.Limits{Time: 300 * time.Millisecond, Output: 100}, nil, filepath.Join(dir, "hang"))
	if !strings.Contains(got.Problem(), "cut off after 300ms") {
		t.Errorf("it ended with %q", got.Problem())
	}
	pid, err := os.ReadFile(dir + "/child")
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
	if err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("its child lives on: %s", stat)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if program.Run(ctx, direct{}, program.Limits{Time: time.Second}, nil, "/bin/true").Err == nil {
		t.Error("a program ran after the end")
	}
}

func TestHealth(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	for name, script := range map[string]string{
		"fine":    "echo '\"checked\": 5'",
		"says":    "echo '\"fan\": \"unhealthy; it stands still\"'",
		"plain":   "echo '\"healthy\": false'",
		"status":  "echo broken; exit 1",
		"garbage": "echo well",
	} {
		write(t, 0o755, "#!/bin/sh\n"+script+"\n", dir, "health", name)
	}
	gpu := root + "/sys/bus/pci/devices/0000:01:00.0"
	write(t, 0o644, "0x030200\n", gpu, "class")
	write(t, 0o644, "0x1002\n", gpu, "vendor")
	write(t, 0o644, "RxErr 0\nTOTAL_ERR_FATAL 0\n", gpu, "aer_dev_fatal")
	write(t, 0o644, "ue: 0\nce: 7\n", gpu, "ras/umc_err_count")
	port := root + "/sys/class/infiniband/mlx5_0/ports/1"
	write(t, 0o644, "4: ACTIVE\n", port, "state")
	write(t, 0o644, "5: LinkUp\n", port, "phys_state")
	write(t, 0o644, "100 Gb/sec (4X EDR)\n", port, "rate")
	write(t, 0o644, "3\n", port, "counters/symbol_error")
	write(t, 0o644, "running\n", root, "sys/block/sda/device/state")
	write(t, 0o644, "MemTotal: 1000 kB\nMemAvailable: 500 kB\n", root, "proc/meminfo")
	write(t, 0o644, "0\n", root, "sys/fs/ext4/sda1/errors_count")

	r := New(Config{Log: slog.New(slog.DiscardHandler), Run: direct{}, Plugins: []string{dir}})
	r.doctor.root = root
	verdict := func(pairs ...string) string {
		r.Configure(attributes(pairs...))
		r.checkup(t.Context())
		v, _ := values(t, r.status)["health"].(string)
		return v
	}
	if got := verdict("_health_plugins", "default,fine,-filesystems"); got != healthy {
		t.Errorf("of a healthy node it is said: %s", got)
	}
	if s := values(t, r.status); s["checked"] != 5.0 || fmt.Sprint(s["health_checks"]) != "map[disk:healthy fine:healthy gpu:healthy infiniband:healthy memory:healthy time:healthy]" {
		t.Errorf("status %v", s)
	}
	write(t, 0o644, "ue: 2\n", gpu, "ras/umc_err_count")
	write(t, 0o644, "1: DOWN\n", port, "state")
	write(t, 0o644, "30\n", port, "counters/symbol_error")
	write(t, 0o644, "offline\n", root, "sys/block/sda/device/state")
	write(t, 0o644, "1\n", root, "sys/devices/system/edac/mc/mc0/ue_count")
	write(t, 0o644, "4\n", root, "sys/fs/ext4/sda1/errors_count")
	r.skew.Store(int64(-20 * time.Second))
	want := "unhealthy; disk: sda is offline; filesystems: 4 errors in the ext4 file system on sda1; gpu: 2 uncorrectable errors of 0000:01:00.0; " +
		"infiniband: 27 more errors on mlx5_0/1, mlx5_0/1 is DOWN; memory: 50.0 % of the memory is available, 1 uncorrectable errors in the memory of mc0; time: the clock is 20s ahead of the head's"
	if got := verdict("_health_memory_percent", "60", "_health_disk_percent", "100"); got != want {
		t.Errorf("of a sick node it is said:\n%s\nwant\n%s", got, want)
	}
	if got := verdict("_health_plugins", "gpu", "_health_gpu_errors", "2"); got != healthy {
		t.Errorf("with errors that are borne it is said: %s", got)
	}
	want = "unhealthy; garbage: line 1, \"well\", is not \"key\": JSON; plain: it says so; says: fan: it stands still; status: exit status 1: broken"
	if got := verdict("_health_plugins", "says,plain,garbage", "_health_check", "status"); got != want {
		t.Errorf("by plugins it is said:\n%s\nwant\n%s", got, want)
	}
	if got := verdict("_health_check", "none"); got != "" {
		t.Errorf("without health it is said: %s", got)
	}
	if p := ports(root, newPace(t.Context())); len(p) != 1 || p[0].Gbit != 100 || p[0].State != "DOWN" || p[0].Physical != "LinkUp" {
		t.Errorf("ports %+v", p)
	}
	if g := gpus(root, newPace(t.Context())); len(g) != 1 || g[0].Vendor != "0x1002" {
		t.Errorf("GPUs %+v", g)
	}
}

func TestMounts(t *testing.T) {
	got := parseMounts("overlay / overlay rw 0 0\n/dev/sda1 /with\\040space ext4 ro,errors=remount-ro 0 0\nhead:/home /home nfs4 rw 0 0\nproc /proc proc rw 0 0\n/dev/loop0 /snap squashfs ro 0 0\nshort\n")
	if want := []mount{
		{"/", false, `"/":`, `{"type":"overlay","device":"overlay"`}, {"/with space", true, `"/with space":`, `{"type":"ext4","device":"/dev/sda1"`},
	}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestTableIsBounded(t *testing.T) {
	table := newTable()
	for i := range 2 * maxKeys {
		table.put(fmt.Sprint("k", i), strings.Repeat("x", 2000))
	}
	if all := values(t, table); len(all) > maxKeys || table.bytes > maxBytes || len(all) < 100 {
		t.Errorf("%d entries, %d bytes", len(all), table.bytes)
	}
	if wire.MaxSkew < time.Hour {
		t.Error("clocks are refused that only health should tell of")
	}
}

func FuzzPlugin(f *testing.F) {
	for _, s := range []string{"\"a\": 1", "\"a\": 1,\n\"b\": {}", "\"a\": 1}, {\"b\": 2", "x", "#\n\n", "\"a\": [1,\n2]", "\"\": 1", "\"a\": 1, \"b\": 2"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, out []byte) {
		values, err := parse(out)
		if err != nil && values != nil {
			t.Errorf("%q gives %v beside %v", out, values, err)
		}
		for key, v := range values {
			if !json.Valid(v) || key == "" {
				t.Errorf("%q gives %q: %q", out, key, v)
			}
		}
		judge(program.Result{Out: out})
		parseMounts(string(out))
		parseSMI(string(out))
		parseRPM(string(out))
		parseApk(strings.NewReader(string(out)))
		m := map[string]json.RawMessage{"_health_plugins": out, "_status_secs": out, "_health_gpu_errors": out}
		ParseSettings(m)
	})
}
