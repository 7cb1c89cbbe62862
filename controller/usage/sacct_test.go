package usage

import (
	"strings"
	"testing"
)

// FuzzSacct: whatever a program prints is summed up or refused.
func FuzzSacct(f *testing.F) {
	head := strings.Join(columns, "|") + "\n"
	for _, s := range []string{"", head, head + "1|a|b|COMPLETED|1|2|3\n", head + "1|a|b|C|-1|2|3\n||||||\n", "x|" + head + "\xff", head + strings.Repeat("|", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, out string) {
		j, err := parse(strings.NewReader(out))
		if err != nil {
			return
		}
		jobs := 0
		for _, s := range j.Users {
			jobs += s.Jobs
		}
		if jobs != j.Count || j.NodeHours < 0 || j.CPUHours < 0 || j.Skipped < 0 {
			t.Errorf("%q sums up to %+v", out, j)
		}
	})
}
