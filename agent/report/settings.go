package report

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The attributes by which an admin says what is reported, how often, and what
// counts as healthy.
const (
	attrStatusPlugins   = "_status_plugins"   // names with commas; "default" stands for all built-in ones, -NAME leaves one out
	attrHardwarePlugins = "_hardware_plugins" // likewise
	attrHealthPlugins   = "_health_plugins"   // likewise
	attrHealthCheck     = "_health_check"     // one more of the health plugins; "none" for no health at all
	attrStatusSecs      = "_status_secs"
	attrHardwareSecs    = "_hardware_secs"
	attrHealthSecs      = "_health_secs"

	attrDiskPercent   = "_health_disk_percent"   // used space or inodes of a file system from which on it is full
	attrMemoryPercent = "_health_memory_percent" // available memory below which there is too little
	attrTimeSecs      = "_health_time_secs"      // how far the clock may be from the head's
	attrGPUErrors     = "_health_gpu_errors"     // uncorrectable errors since the boot that are borne
	attrIBErrors      = "_health_ib_errors"      // errors of an InfiniBand port between two checks that are borne
)

// allBuiltIn stands for all built-in plugins in a choice.
const allBuiltIn = "default"

// Settings are what attributes say about reports.
type Settings struct {
	status, hardware, health             choice
	statusEvery                          time.Duration // 0: as the head's greeting says
	hardwareEvery, healthEvery           time.Duration
	disk, memory, clock, gpu, infiniband float64
	off                                  bool // no health
	problems                             []string
}

// choice says which plugins run.
type choice struct {
	builtIn map[string]bool // the built-in ones; nil for all
	without map[string]bool
	others  []string // executables, in order
}

func (c choice) takes(builtIn string) bool {
	return !c.without[builtIn] && (c.builtIn == nil || c.builtIn[builtIn])
}

// defaults hold without any attribute.
func defaults() Settings {
	return Settings{hardwareEvery: 5 * time.Minute, healthEvery: 5 * time.Minute, disk: 95, memory: 2, clock: 5, gpu: 0, infiniband: 10}
}

// ParseSettings reads attributes. What is no good is named in the problems, and
// its default holds.
func ParseSettings(attributes map[string]json.RawMessage) Settings {
	s := defaults()
	text := func(key string) string {
		raw, ok := attributes[key]
		if !ok {
			return ""
		}
		var v string
		if json.Unmarshal(raw, &v) != nil {
			v = string(raw) // a number or a truth value, as it is written
		}
		return strings.TrimSpace(v)
	}
	number := func(key string, least, most float64, to *float64) {
		v := text(key)
		if v == "" {
			return
		}
		n, err := strconv.ParseFloat(v, 64)
		if err != nil || !(n >= least && n <= most) {
			s.problems = append(s.problems, fmt.Sprintf("%s: %.40q is not a number from %g to %g", key, v, least, most))
			return
		}
		*to = n
	}
	seconds := func(key string, least float64, to *time.Duration) {
		n := to.Seconds()
		number(key, least, 86_400, &n)
		*to = time.Duration(n * float64(time.Second))
	}
	s.status = s.choose(attrStatusPlugins, text(attrStatusPlugins), statusNames)
	s.hardware = s.choose(attrHardwarePlugins, text(attrHardwarePlugins), hardwareNames)
	s.health = s.choose(attrHealthPlugins, text(attrHealthPlugins), healthNames)
	switch check := text(attrHealthCheck); check {
	case "":
	case "none":
		s.off = true
	default:
		s.health.add(&s, attrHealthCheck, check, healthNames)
	}
	seconds(attrStatusSecs, 1, &s.statusEvery)
	seconds(attrHardwareSecs, 10, &s.hardwareEvery)
	seconds(attrHealthSecs, 10, &s.healthEvery)
	number(attrDiskPercent, 1, 100, &s.disk)
	number(attrMemoryPercent, 0, 100, &s.memory)
	number(attrTimeSecs, 1, 86_400, &s.clock)
	number(attrGPUErrors, 0, 1e9, &s.gpu)
	number(attrIBErrors, 0, 1e9, &s.infiniband)
	return s
}

// The names of the built-in plugins.
const (
	statusNames   = "load memory system modules packages filesystems network users"
	hardwareNames = "cpu memory machine nics disks gpus infiniband"
	healthNames   = "disk memory time filesystems gpu infiniband"
)

// maxPlugins bounds how many executables run for each of the three.
const maxPlugins = 32

// choose reads a list of plugins. An empty one means all built-in ones.
func (s *Settings) choose(key, text, builtIn string) choice {
	c := choice{without: map[string]bool{}}
	names := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	if slices.ContainsFunc(names, func(n string) bool { return !strings.HasPrefix(n, "-") }) {
		c.builtIn = map[string]bool{}
	}
	for _, name := range names {
		if without, ok := strings.CutPrefix(name, "-"); ok {
			c.without[without] = true
			continue
		}
		c.add(s, key, name, builtIn)
	}
	return c
}

func (c *choice) add(s *Settings, key, name, builtIn string) {
	switch {
	case name == allBuiltIn:
		c.builtIn = nil
	case slices.Contains(strings.Fields(builtIn), name):
		if c.builtIn != nil {
			c.builtIn[name] = true
		}
	case slices.Contains(c.others, name):
	case !pluginName.MatchString(name) || len(c.others) == maxPlugins:
		s.problems = append(s.problems, fmt.Sprintf("%s: %.80q is no name of a plugin, or the %dth", key, name, maxPlugins+1))
	default:
		c.others = append(c.others, name)
	}
}
