package usage

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"muster/shared/fault"
	"muster/shared/object"
)

// Jobs is what Slurm tells of a period: the part of each job that lies in it.
type Jobs struct {
	Count     int     `json:"count"`
	NodeHours float64 `json:"node_hours"`
	CPUHours  float64 `json:"cpu_hours"`
	Users     []Sum   `json:"users"`
	Accounts  []Sum   `json:"accounts"`
	States    []Sum   `json:"states"`
	Skipped   int     `json:"skipped,omitempty"` // lines that were no job as sacct writes it
}

// Sum is the jobs of a user, of an account, or that ended in a state.
type Sum struct {
	Name      string  `json:"name"`
	Jobs      int     `json:"jobs"`
	NodeHours float64 `json:"node_hours"`
	CPUHours  float64 `json:"cpu_hours"`
}

// Bounds on what sacct prints, and on how many users and accounts are told apart.
const (
	maxOutput = 256 << 20 // bytes
	maxLine   = 64 << 10
	maxSums   = 10_000
	maxStderr = 4 << 10
)

// columns are asked for by name and found by name: versions of Slurm differ.
var columns = []string{"JobIDRaw", "User", "Account", "State", "AllocNodes", "ElapsedRaw", "CPUTimeRAW"}

// arguments of sacct: all users' jobs, without their steps, cut to the period.
func arguments(a object.Accountant, from, to time.Time) []string {
	args := []string{
		"--allusers", "--allocations", "--parsable2", "--truncate", "--format=" + strings.Join(columns, ","),
		"--starttime=" + from.Format(dayForm) + "T00:00:00",
		"--endtime=" + to.Format(dayForm) + "T23:59:59",
	}
	if a.Cluster != "" {
		args = append(args, "--clusters="+a.Cluster)
	}
	return args
}

// jobs runs sacct and sums up what it prints.
func jobs(ctx context.Context, a object.Accountant, from, to time.Time) (*Jobs, error) {
	path, err := program(a.Sacct)
	if err != nil {
		return nil, err
	}
	limit := a.Timeout
	if limit == 0 {
		limit = usualTime
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(limit)*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, arguments(a, from, to)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC", "SLURM_TIME_FORMAT=standard"}
	cmd.Dir = "/"
	// What it starts goes with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var stderr bounded
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fault.New(fault.Upstream, "%s cannot be run: %v.", path, err)
	}
	defer context.AfterFunc(ctx, func() { out.Close() })()
	sum, readErr := parse(io.LimitReader(out, maxOutput))
	if readErr != nil && readErr != errSilent {
		cancel() // it may have more to say
	}
	err = cmd.Wait()
	switch {
	case err != nil && readErr == errSilent && ctx.Err() == nil:
		return nil, fault.New(fault.Upstream, "%s failed: %v: %s.", path, err, strings.TrimSuffix(strings.TrimSpace(stderr.String()), "."))
	case readErr != nil && ctx.Err() != context.DeadlineExceeded:
		return nil, fault.New(fault.Upstream, "%s: %v.", path, readErr)
	case ctx.Err() == context.DeadlineExceeded:
		return nil, fault.New(fault.Timeout, "%s did not finish within %d s: ask for a shorter period, or give it more time in /api/v1/cluster/accountant.", path, limit)
	case err != nil:
		return nil, fault.New(fault.Upstream, "%s failed: %v: %s.", path, err, strings.TrimSuffix(strings.TrimSpace(stderr.String()), "."))
	}
	return sum, nil
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, maxStderr-b.Len()))])
	return len(p), nil
}

var errSilent = errors.New("it printed nothing")

// parse sums up sacct's output: a line of column names, then one for each job,
// fields divided by "|".
func parse(r io.Reader) (*Jobs, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	if !lines.Scan() {
		if err := lines.Err(); err != nil {
			return nil, err
		}
		return nil, errSilent
	}
	head := strings.Split(lines.Text(), "|")
	at := make([]int, len(columns))
	for i, name := range columns {
		at[i] = slices.IndexFunc(head, func(h string) bool { return strings.EqualFold(h, name) })
		if at[i] < 0 {
			return nil, fmt.Errorf("its first line %.200q has no column %s", lines.Text(), name)
		}
	}
	out := &Jobs{}
	by := []map[string]*Sum{{}, {}, {}}
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "|")
		if len(fields) != len(head) || !out.add(fields, at, by) {
			out.Skipped++
		}
	}
	out.Users, out.Accounts, out.States = sorted(by[0]), sorted(by[1]), sorted(by[2])
	return out, lines.Err()
}

// add counts one job; false when a field is not what belongs there.
func (j *Jobs) add(fields []string, at []int, by []map[string]*Sum) bool {
	var n [3]float64
	for i := range n {
		v, err := strconv.ParseUint(fields[at[4+i]], 10, 40)
		if err != nil {
			return false
		}
		n[i] = float64(v)
	}
	state, _, _ := strings.Cut(fields[at[3]], " ") // "CANCELLED by 1000"
	nodeHours, cpuHours := n[0]*n[1]/3600, n[2]/3600
	j.Count++
	j.NodeHours += nodeHours
	j.CPUHours += cpuHours
	for i, name := range []string{fields[at[1]], fields[at[2]], state} {
		s := by[i][name]
		if s == nil && len(by[i]) >= maxSums {
			name = "others"
			s = by[i][name]
		}
		if s == nil {
			s = &Sum{Name: name}
			by[i][name] = s
		}
		s.Jobs++
		s.NodeHours += nodeHours
		s.CPUHours += cpuHours
	}
	return true
}

func sorted(by map[string]*Sum) []Sum {
	out := []Sum{}
	for _, s := range by {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Sum) int { return strings.Compare(a.Name, b.Name) })
	return out
}
