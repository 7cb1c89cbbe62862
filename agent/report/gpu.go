package report

import (
	"context"
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/agent/program"
)

const maxGPUs = 32

// gpu is a display or compute controller on the PCI bus. ghw would name it from
// the PCI database, which takes 20 MB of memory for a moment: more than the
// agent may use, so the numbers are given as they are.
type gpu struct {
	Address string `json:"address"`
	Class   string `json:"class"`
	Vendor  string `json:"vendor"`
	Device  string `json:"device"`
	Driver  string `json:"driver,omitempty"`
	// What nvidia-smi says, where it is there.
	Model         string `json:"model,omitempty"`
	UUID          string `json:"uuid,omitempty"`
	Memory        uint64 `json:"memory_kib,omitempty"`
	DriverVersion string `json:"driver_version,omitempty"`
}

// gpus are those below root.
func gpus(root string, p *pace) []gpu {
	out := []gpu{}
	dirs, _ := filepath.Glob(filepath.Join(root, "sys/bus/pci/devices/*"))
	slices.Sort(dirs)
	for _, dir := range dirs {
		p.step()
		class := firstLine(dir + "/class")
		if !strings.HasPrefix(class, "0x03") && !strings.HasPrefix(class, "0x1200") || len(out) == maxGPUs {
			continue
		}
		g := gpu{Address: filepath.Base(dir), Class: class, Vendor: firstLine(dir + "/vendor"), Device: firstLine(dir + "/device")}
		if target, err := os.Readlink(dir + "/driver"); err == nil {
			g.Driver = filepath.Base(target)
		}
		out = append(out, g)
	}
	return out
}

// nvidia is the vendor's number on the PCI bus.
const nvidia = "0x10de"

// smiPaths is where nvidia-smi may be.
func smiPaths() []string { return []string{"/usr/bin/nvidia-smi", "/opt/bin/nvidia-smi"} }

// smi asks nvidia-smi, which is a program of some weight: only where there is a
// card for it.
func smi(ctx context.Context, r program.Runner, have []gpu, query string) [][]string {
	if r == nil || !slices.ContainsFunc(have, func(g gpu) bool { return g.Vendor == nvidia }) {
		return nil
	}
	for _, path := range smiPaths() {
		if fi, err := os.Stat(path); err == nil && program.Trusted(fi) == nil {
			got := program.Run(ctx, r, program.Limits{Time: 20 * time.Second, Output: pluginOutput}, nil, path, "--query-gpu="+query, "--format=csv,noheader,nounits")
			if got.Err == nil {
				return parseSMI(string(got.Out))
			}
		}
	}
	return nil
}

func parseSMI(text string) [][]string {
	c := csv.NewReader(strings.NewReader(text))
	c.TrimLeadingSpace, c.FieldsPerRecord, c.LazyQuotes = true, -1, true
	rows, err := c.ReadAll()
	if err != nil {
		return nil
	}
	return rows
}

// describe adds what nvidia-smi says of the cards.
func describe(ctx context.Context, r program.Runner, have []gpu) []gpu {
	for _, row := range smi(ctx, r, have, "pci.bus_id,name,uuid,memory.total,driver_version") {
		if len(row) < 5 {
			continue
		}
		for i := range have {
			// nvidia-smi writes the domain with eight digits, the kernel with four.
			if strings.HasSuffix(strings.ToLower(row[0]), have[i].Address) {
				mib, _ := strconv.ParseUint(row[3], 10, 40)
				have[i].Model, have[i].UUID, have[i].Memory, have[i].DriverVersion = row[1], row[2], mib*1024, row[4]
			}
		}
	}
	return have
}

// gpuErrors counts the uncorrectable errors of each card since the boot: what
// the PCI bus saw, what amdgpu's memory did, and what nvidia-smi counts.
func gpuErrors(ctx context.Context, r program.Runner, root string, p *pace) map[string]uint64 {
	have := gpus(root, p)
	out := map[string]uint64{}
	for _, g := range have {
		dir := filepath.Join(root, "sys/bus/pci/devices", g.Address)
		p.step()
		var n uint64
		for _, file := range []string{"aer_dev_fatal", "aer_dev_nonfatal"} {
			eachLine(filepath.Join(dir, file), func(line string) bool {
				if strings.HasPrefix(line, "TOTAL_") {
					_, value, _ := strings.Cut(line, " ")
					total, _ := digits([]byte(value))
					n += total
				}
				return true
			})
		}
		counts, _ := filepath.Glob(filepath.Join(dir, "ras/*_err_count"))
		for _, file := range counts {
			eachLine(file, func(line string) bool {
				if value, ok := strings.CutPrefix(line, "ue:"); ok {
					total, _ := digits([]byte(value))
					n += total
				}
				return true
			})
		}
		out[g.Address] = n
	}
	for _, row := range smi(ctx, r, have, "pci.bus_id,ecc.errors.uncorrected.volatile.total") {
		if len(row) < 2 {
			continue
		}
		n, _ := strconv.ParseUint(row[1], 10, 64) // "[N/A]" is none
		for address := range out {
			if strings.HasSuffix(strings.ToLower(row[0]), address) {
				out[address] += n
			}
		}
	}
	return out
}
