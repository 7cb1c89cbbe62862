package report

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"muster/agent/program"
)

// healthy is what is said of a check that found nothing. Any other finding is
// unhealthy and a reason.
const (
	healthy   = "healthy"
	unhealthy = "unhealthy; "
)

// maxReason bounds the reason of one check, in bytes.
const maxReason = 300

// doctor checks the node. What counts up it compares with what it last saw.
type doctor struct {
	root   string
	run    program.Runner
	mounts *mountTable
	pace   *pace // of the check-up that is under way

	active map[string]bool   // InfiniBand ports that were
	errors map[string]uint64 // their error counters at the last check
}

// check gives the reasons of a built-in check, none where all is well.
func (d *doctor) check(ctx context.Context, name string, s Settings, skew time.Duration) []string {
	switch name {
	case "disk":
		return d.disks()
	case "memory":
		return d.memory(s.memory)
	case "time":
		return clock(skew, s.clock)
	case "filesystems":
		return d.filesystems(s.disk)
	case "gpu":
		return d.gpus(ctx, s.gpu)
	case "infiniband":
		return d.infiniband(s.infiniband)
	}
	return nil
}

// disks are those that the kernel gave up, and arrays that lack one.
func (d *doctor) disks() (bad []string) {
	for pattern, good := range map[string]string{"sys/block/*/device/state": "running live", "sys/block/md*/md/degraded": "0"} {
		files, _ := filepath.Glob(filepath.Join(d.root, pattern))
		d.pace.step()
		for _, file := range files {
			d.pace.step()
			state := firstLine(file)
			if state == "" || slices.Contains(strings.Fields(good), state) {
				continue
			}
			disk, _, _ := strings.Cut(strings.TrimPrefix(file, filepath.Join(d.root, "sys/block")+"/"), "/")
			if filepath.Base(file) == "degraded" {
				state = "degraded, " + state + " missing"
			}
			bad = append(bad, disk+" is "+state)
		}
	}
	return bad
}

// memory is too little, or has errors that could not be corrected.
func (d *doctor) memory(least float64) (bad []string) {
	var total, available uint64
	eachLine(filepath.Join(d.root, "proc/meminfo"), func(line string) bool {
		if v, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			total, _ = digits([]byte(v))
		}
		if v, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			available, _ = digits([]byte(v))
		}
		return total == 0 || available == 0
	})
	if percent := 100 * float64(available) / float64(max(total, 1)); total > 0 && percent < least {
		bad = append(bad, fmt.Sprintf("%.1f %% of the memory is available", percent))
	}
	files, _ := filepath.Glob(filepath.Join(d.root, "sys/devices/system/edac/mc/mc*/ue_count"))
	d.pace.step()
	for _, file := range files {
		d.pace.step()
		if n, _ := digits([]byte(firstLine(file))); n > 0 {
			bad = append(bad, fmt.Sprintf("%d uncorrectable errors in the memory of %s", n, filepath.Base(filepath.Dir(file))))
		}
	}
	return bad
}

func clock(skew time.Duration, most float64) []string {
	if skew.Abs().Seconds() <= most {
		return nil
	}
	word := "behind"
	if skew < 0 {
		word = "ahead of"
	}
	return []string{fmt.Sprintf("the clock is %s %s the head's", skew.Abs().Round(time.Second), word)}
}

// filesystems are full, were made read-only by the kernel, or have errors.
func (d *doctor) filesystems(most float64) (bad []string) {
	for _, m := range d.mounts.look() {
		u, ok := m.usage()
		switch {
		case !ok:
			continue
		case m.readOnly && d.mounts.wrote[m.point]:
			bad = append(bad, m.point+" became read-only")
		case m.readOnly:
			continue
		}
		if used := 100 - 100*float64(u.free)/float64(max(u.total, 1)); u.total > 0 && used >= most {
			bad = append(bad, fmt.Sprintf("%s is %.0f %% full", m.point, used))
		}
		if used := 100 - 100*float64(u.inodesFree)/float64(max(u.inodes, 1)); u.inodes > 0 && used >= most {
			bad = append(bad, fmt.Sprintf("%.0f %% of the inodes of %s are used", used, m.point))
		}
	}
	files, _ := filepath.Glob(filepath.Join(d.root, "sys/fs/ext4/*/errors_count"))
	d.pace.step()
	for _, file := range files {
		d.pace.step()
		if n, _ := digits([]byte(firstLine(file))); n > 0 {
			bad = append(bad, fmt.Sprintf("%d errors in the ext4 file system on %s", n, filepath.Base(filepath.Dir(file))))
		}
	}
	slices.Sort(bad)
	return bad
}

func (d *doctor) gpus(ctx context.Context, most float64) (bad []string) {
	for address, n := range gpuErrors(ctx, d.run, d.root, d.pace) {
		if float64(n) > most {
			bad = append(bad, fmt.Sprintf("%d uncorrectable errors of %s", n, address))
		}
	}
	slices.Sort(bad)
	return bad
}

// infiniband is bad where a port went down that was active, or where errors
// come.
func (d *doctor) infiniband(most float64) (bad []string) {
	if d.active == nil {
		d.active = map[string]bool{}
	}
	for _, p := range ports(d.root, d.pace) {
		if p.State == "ACTIVE" {
			d.active[p.name()] = true
		} else if d.active[p.name()] {
			bad = append(bad, p.name()+" is "+p.State)
		}
	}
	now := portErrors(d.root, d.pace)
	for name, n := range now {
		if before, ok := d.errors[name]; ok && n > before && float64(n-before) > most {
			bad = append(bad, fmt.Sprintf("%d more errors on %s", n-before, name))
		}
	}
	d.errors = now
	slices.Sort(bad)
	return bad
}

// verdict is what the findings of all checks mean together: healthy, or
// unhealthy and why. Of findings that are no such word only those are judged
// that a check gave itself, see judge.
func verdict(findings map[string]string) string {
	var bad []string
	for name, finding := range findings {
		if reason, ok := strings.CutPrefix(finding, unhealthy); ok {
			bad = append(bad, name+": "+reason)
		}
	}
	if len(bad) == 0 {
		return healthy
	}
	slices.Sort(bad)
	return unhealthy + clip(strings.Join(bad, "; "), 4*maxReason)
}

// judge says what a health plugin found. One that could not do its work, or
// ended with another status than 0, finds the node unhealthy; so does one that
// prints `"healthy": false`, or a value that begins with "unhealthy".
func judge(r program.Result) (string, map[string]json.RawMessage) {
	if problem := r.Problem(); problem != "" {
		return unhealthy + clip(problem, maxReason), nil
	}
	values, err := parse(r.Out)
	if err != nil {
		return unhealthy + clip(err.Error(), maxReason), nil
	}
	var bad []string
	for key, raw := range values {
		var text string
		if string(raw) == "false" && key == healthy {
			bad = append(bad, "it says so")
		}
		if json.Unmarshal(raw, &text) == nil && strings.HasPrefix(text, "unhealthy") {
			reason := strings.TrimLeft(strings.TrimPrefix(text, "unhealthy"), ";: ")
			bad = append(bad, strings.TrimSuffix(key+": "+reason, ": "))
		}
	}
	if len(bad) == 0 {
		return healthy, values
	}
	slices.Sort(bad)
	return unhealthy + clip(strings.Join(bad, ", "), maxReason), values
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
