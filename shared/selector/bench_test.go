package selector_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster/shared/selector"
)

// cluster makes nodes as a head would hold them.
func cluster(count int) []*node {
	nodes := make([]*node, count)
	for i := range nodes {
		name, index := fmt.Sprintf("n%d", i), int64(i)
		nodes[i] = &node{
			attributes: map[string]any{"_boot_config": fmt.Sprintf("Boot%d", i%7), "rack": fmt.Sprintf("r%02d", i/40), "slot": json.Number(fmt.Sprint(i % 40))},
			status:     map[string]any{"state": []string{"up", "down", "booting"}[i%3], "ram_free": json.Number(fmt.Sprint(i * 1000)), "load_avg": []any{json.Number("0.5"), json.Number("1")}},
			hardware:   map[string]any{"ram_total": json.Number(fmt.Sprint(97656250 + i - count/2)), "cpu_count": json.Number("64")},
			fields:     map[string]any{"name": &name, "index": &index},
			groups:     []string{"gpu"},
		}
	}
	return nodes
}

var measured = map[string]string{
	"equal":    `a[_boot_config] == "Boot3"`,
	"and":      `up and a[_boot_config] == "Boot3" and not %gpu`,
	"size":     `h[ram_total] > 100GB`,
	"number":   `index >= 100 and index < 9000`,
	"list":     `a[slot] in [1, 2, 3, 5, 8, 13]`,
	"hostlist": `name in n[0-4999]`,
	"regexp":   `a[rack] =~ "^r0[0-9]$"`,
	"dotted":   `s[load_avg.1] > 0.5`,
	"missing":  `a[nosuch] == 1 or s[no.such] == 1`,
}

// used is the processor time of this process, which other processes on the
// machine do not change.
func used(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkMatch is one pass over 10,000 nodes.
func BenchmarkMatch(b *testing.B) {
	nodes := cluster(10_000)
	for _, name := range slices.Sorted(maps.Keys(measured)) {
		s := measured[name]
		b.Run(name, func(b *testing.B) {
			e := parse(b, s)
			b.ReportAllocs()
			start := used(b)
			for b.Loop() {
				for _, n := range nodes {
					e.Match(n)
				}
			}
			b.ReportMetric(float64(b.N*len(nodes))/(used(b)-start).Seconds()/1e6, "Mnodes/cpu-s")
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for _, s := range []string{`h[ram_total] > 100GB`, strings.TrimSuffix(strings.Repeat(`a[rack] == "r12" or `, 1000), " or ")} {
		b.Run(fmt.Sprint(len(s)), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(s)))
			for b.Loop() {
				if _, err := selector.Parse(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The memory of a pass must not grow with the nodes. Regular expressions are
// left out: they keep their memory in a pool, which the race detector empties at random.
func TestMatchDoesNotAllocate(t *testing.T) {
	nodes := cluster(50)
	for name, s := range measured {
		if name == "regexp" {
			continue
		}
		e := parse(t, s)
		if n := testing.AllocsPerRun(10, func() {
			for _, n := range nodes {
				e.Match(n)
			}
		}); n > 0 {
			t.Errorf("%s: %s allocates %v times for %d nodes", name, s, n, len(nodes))
		}
	}
}
