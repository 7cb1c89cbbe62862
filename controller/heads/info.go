package heads

import (
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/object"
)

// shownHead is a head with how it is.
type shownHead struct {
	*object.Head
	This   bool     `json:"this"` // it is the head that answers
	Up     bool     `json:"up"`
	Reason string   `json:"reason,omitempty"` // why it is not up
	Now    *present `json:"now,omitempty"`    // only of the head that answers
}

// present is how the head that answers is.
type present struct {
	Version  string         `json:"version"`
	Started  float64        `json:"started"` // seconds since 1970
	Uptime   float64        `json:"uptime"`  // of the program, in seconds
	System   string         `json:"system"`
	CPUs     int            `json:"cpus"`
	Load     []float64      `json:"load_avg,omitempty"`
	RAMTotal uint64         `json:"ram_total,omitempty"` // bytes
	DiskFree uint64         `json:"disk_free,omitempty"` // bytes, where the head keeps its data
	Services []shownService `json:"services"`
}

func (h *Heads) getHead(w http.ResponseWriter, r *http.Request) error {
	o, err := h.find(r)
	if err != nil {
		return err
	}
	out := shownHead{Head: h.opt.Objects.Show(object.KindHead, o).(*object.Head)}
	if o.UID == h.opt.Self.UID {
		out.This, out.Up, out.Now = true, true, h.now()
	} else {
		out.Reason = h.absence(r.Context(), o)
		out.Up = out.Reason == ""
	}
	return api.Data(w, out)
}

func (h *Heads) now() *present {
	now := h.opt.Now()
	p := &present{
		Version: h.opt.Self.Version, Started: float64(h.started.UnixMicro()) / 1e6, Uptime: now.Sub(h.started).Seconds(),
		CPUs: runtime.NumCPU(), Services: h.services(), System: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if raw, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		p.System += " " + strings.TrimSpace(string(raw))
	}
	if raw, err := os.ReadFile("/proc/loadavg"); err == nil {
		for _, word := range strings.Fields(string(raw)) {
			if n, err := strconv.ParseFloat(word, 64); err == nil && len(p.Load) < 3 {
				p.Load = append(p.Load, n)
			}
		}
	}
	var mem syscall.Sysinfo_t
	if syscall.Sysinfo(&mem) == nil {
		p.RAMTotal = uint64(mem.Totalram) * uint64(mem.Unit)
	}
	var disk syscall.Statfs_t
	if syscall.Statfs(h.opt.Data, &disk) == nil {
		p.DiskFree = disk.Bavail * uint64(disk.Bsize)
	}
	return p
}

// shownLine is a line of the log as users see it.
type shownLine struct {
	Time  float64 `json:"time"` // seconds since 1970
	ISO   string  `json:"iso"`
	Level string  `json:"level"`
	Text  string  `json:"text"`
}

// Bounds on how many lines of the log are shown.
const (
	usualLines = 200
	maxLines   = 100_000
)

func (h *Heads) getLog(w http.ResponseWriter, r *http.Request) error {
	o, err := h.here(r)
	if err != nil {
		return err
	}
	n, least := usualLines, slog.LevelDebug
	q := r.URL.Query()
	if q.Has("lines") {
		if n, err = strconv.Atoi(q.Get("lines")); err != nil || n < 1 || n > maxLines {
			return fault.Invalidf("lines: %.80q is not a number from 1 to %d.", q.Get("lines"), maxLines)
		}
	}
	if q.Has("level") && least.UnmarshalText([]byte(q.Get("level"))) != nil {
		return fault.Invalidf("level: %.80q is none of debug, info, warn, error.", q.Get("level"))
	}
	lines, forgotten := h.opt.Book.Last(n, least)
	shown := make([]shownLine, 0, len(lines))
	for _, l := range lines {
		shown = append(shown, shownLine{float64(l.Time.UnixMicro()) / 1e6, l.Time.UTC().Format(time.RFC3339Nano), strings.ToLower(l.Level.String()), l.Text})
	}
	return api.Data(w, map[string]any{"head": o.UID, "name": o.Name, "lines": shown, "forgotten": forgotten})
}
