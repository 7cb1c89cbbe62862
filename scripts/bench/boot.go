package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"muster/scripts/lab"
	"muster/scripts/lab/floor"
)

// floorCommand makes this program serve the floor.
const floorCommand = "floor"

// bootPatience is for one boot, emulated.
const bootPatience = 4 * time.Minute

// rig is two networks with the same machines: one with a head, one with the floor.
type rig struct {
	head   *lab.Cluster
	bottom *lab.Network
	events <-chan floor.Event
	// For each kind of machine, of each of its boots: seconds from the power
	// switch to the first HTTP call, and from there to the root.
	first, root map[string]*pair
}

// pair is what was measured through the head and on the floor.
type pair struct{ head, floor []float64 }

var kinds = []lab.Spec{
	{Name: "bios", Firmware: lab.BIOS, MAC: "52:54:00:78:00:01"},
	{Name: "uefi", Firmware: lab.UEFI, Boot: lab.PXE, MAC: "52:54:00:78:00:02"},
}

// measureBoots boots each kind of machine through the head and from the floor
// in turn, so that whatever else the host does hits both.
func measureBoots(ctx context.Context, s settings) (figures []figure, err error) {
	r := &rig{first: map[string]*pair{}, root: map[string]*pair{}}
	if r.head, err = lab.NewCluster(ctx, lab.Options{Program: s.program, Cache: s.cache, Log: s.log}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.head.Close()) }()
	if err := r.head.Setup(r.muster(ctx)); err != nil {
		return nil, err
	}
	if err := r.muster(ctx)("bootconfig", "update", "DefaultBoot", "--boot-style", "roram"); err != nil {
		return nil, err
	}
	if r.bottom, err = lab.NewNetwork(ctx, s.log); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.bottom.Close()) }()
	if err := r.startFloor(ctx); err != nil {
		return nil, err
	}
	memory := 0.0
	for i, spec := range kinds {
		name := spec.Firmware.String()
		r.first[name], r.root[name] = &pair{}, &pair{}
		upper, err := r.head.Machine(ctx, spec)
		if err != nil {
			return nil, err
		}
		lower, err := r.bottom.NewMachine(ctx, r.head.Dir, r.head.Accel, with(spec, "floor-"+spec.Name))
		if err != nil {
			return nil, err
		}
		defer lower.Close()
		for n := range s.boots {
			s.log.Info("booting", "machine", name, "round", n+1, "of", s.boots)
			if err := r.bootFloor(ctx, lower, name); err != nil {
				return nil, fmt.Errorf("%w; its console:\n%s", err, lower.Console.Tail(20))
			}
			if memory, err = r.bootHead(ctx, upper, name, fmt.Sprintf("n%d", i)); err != nil {
				return nil, fmt.Errorf("%w\n%s", err, r.head.Tails(20))
			}
		}
	}
	return r.figures(memory)
}

func with(s lab.Spec, name string) lab.Spec {
	s.Name = name
	return s
}

func (r *rig) muster(ctx context.Context) func(...string) error {
	return func(args ...string) error {
		_, err := r.head.Head.CLI(ctx, args...)
		return err
	}
}

// startFloor serves the same kernel and the same image as the head does.
func (r *rig) startFloor(ctx context.Context) error {
	c := floor.Config{
		Interface: lab.Bridge, Address: lab.HeadAddress, Kernel: r.head.Assets.Kernel, Firmware: "/usr/lib/ipxe",
		Initrd: filepath.Join(r.head.Dir, "floor.initrd"), Image: filepath.Join(r.head.Dir, "image.squashfs"), Cmdline: lab.Cmdline,
	}
	if err := r.muster(ctx)("image", "download", "DefaultImage", c.Image); err != nil {
		return err
	}
	if err := floor.Initramfs(ctx, c.Initrd, r.head.Assets.Busybox, r.head.Assets.Modules, c.URL()); err != nil {
		return err
	}
	config, err := json.Marshal(c)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return r.follow(r.bottom.Command(self, floorCommand, string(config)))
}

// follow starts the floor's server, which ends with its network, and reads
// what it says.
func (r *rig) follow(cmd *exec.Cmd) error {
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	events := make(chan floor.Event, 1024)
	r.events = events
	go func() {
		defer close(events)
		defer func() { _ = cmd.Wait() }() // killed with its network
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e floor.Event
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				events <- e
			}
		}
	}()
	if e := <-events; e.What != "ready" {
		return errors.New("the floor's server did not start")
	}
	return nil
}

func (r *rig) bootFloor(ctx context.Context, m *lab.Machine, name string) error {
	begin := time.Now()
	if err := m.Start(); err != nil {
		return err
	}
	defer m.Stop()
	first, err := r.mark(ctx, floor.MarkFirst)
	if err != nil {
		return err
	}
	mounted, err := r.mark(ctx, floor.MarkMounted)
	if err != nil {
		return err
	}
	r.first[name].floor = append(r.first[name].floor, first.Sub(begin).Seconds())
	r.root[name].floor = append(r.root[name].floor, mounted.Sub(first).Seconds())
	return nil
}

// mark waits until the floor's machine has come so far.
func (r *rig) mark(ctx context.Context, what string) (time.Time, error) {
	late := time.After(bootPatience)
	for {
		select {
		case e, ok := <-r.events:
			if !ok {
				return time.Time{}, errors.New("the floor's server ended")
			}
			if e.What == what {
				return e.Time, nil
			}
		case <-late:
			return time.Time{}, fmt.Errorf("the floor's machine did not come to %q", what)
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		}
	}
}

// bootHead boots through the head and returns the memory of the agent in the
// booted image, in KiB.
func (r *rig) bootHead(ctx context.Context, m *lab.Machine, name, node string) (float64, error) {
	begin := time.Now()
	if err := m.Start(); err != nil {
		return 0, err
	}
	defer m.Stop()
	steps, err := r.awaitUp(ctx, node, begin)
	if err != nil {
		return 0, err
	}
	r.first[name].head = append(r.first[name].head, steps["agent"]-seconds(begin))
	r.root[name].head = append(r.root[name].head, steps["root"]-steps["agent"])
	status, err := r.head.Head.CLI(ctx, "exec", "-n", node, "--", "cat $(grep -l '^Name:.muster-agent$' /proc/[0-9]*/status)")
	if err != nil {
		return 0, err
	}
	return statusLine(status, "VmRSS")
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// awaitUp returns when each step of the boot since begin was, once it is up.
func (r *rig) awaitUp(ctx context.Context, node string, begin time.Time) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	for {
		var timeline []struct {
			Step  string
			Time  float64
			Error string
		}
		err := r.head.Head.JSON(ctx, &timeline, "boot", "log", node) // fails until the machine is known
		steps := map[string]float64{}
		for _, s := range timeline {
			if _, known := steps[s.Step]; s.Time >= seconds(begin) && !known {
				steps[s.Step] = s.Time
			}
			if s.Time >= seconds(begin) && s.Error != "" {
				err = fmt.Errorf("%s: step %s: %s", node, s.Step, s.Error)
			}
		}
		if steps["up"] > 0 {
			return steps, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%s did not come up", node), err)
		case <-time.After(200 * time.Millisecond): // seldom, to leave the processors to the machine
		}
	}
}

func (r *rig) figures(agentMemory float64) ([]figure, error) {
	archive, err := r.agentArchive()
	if err != nil {
		return nil, err
	}
	figures := []figure{
		atMost("agent's initramfs, compressed", 4.5, float64(archive)/1e6, "MB", ""),
		atMost("agent's memory in the image", 16, agentMemory/1024, "MB", ""),
	}
	for _, spec := range kinds {
		name := spec.Firmware.String()
		figures = append(figures,
			ratio(name+": power-on to the agent's first call", 1.15, r.first[name]),
			ratio(name+": from there to the root", 1.3, r.root[name]))
	}
	return figures, nil
}

func ratio(name string, bound float64, p *pair) figure {
	detail := fmt.Sprintf("the floor: %s s of %s s", spread(p.head), spread(p.floor))
	return atMost(name, bound, median(p.head)/median(p.floor), "×", detail)
}

// agentArchive is the size of the archive that machines load, which the head
// keeps by content.
func (r *rig) agentArchive() (int64, error) {
	note, err := os.ReadFile(filepath.Join(r.head.Head.Data, "agent-archive"))
	if err != nil {
		return 0, err
	}
	var size int64
	words := strings.Fields(string(note))
	err = filepath.WalkDir(r.head.Head.Data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || len(words) == 0 || !strings.HasSuffix(path, words[len(words)-1]) {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size = info.Size()
		}
		return err
	})
	if err == nil && size == 0 {
		err = fmt.Errorf("the head keeps no archive %s", words)
	}
	return size, err
}
