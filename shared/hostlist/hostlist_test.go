package hostlist_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster/shared/hostlist"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]string{
		"":                                     "",
		" \n":                                  "",
		"n1":                                   "n1",
		"n[0-3,7-9]":                           "n0 n1 n2 n3 n7 n8 n9",
		"n[0-1],gpu[01-03]x,login":             "n0 n1 gpu01x gpu02x gpu03x login",
		"rack[1-2]n[0-2]":                      "rack1n0 rack1n1 rack1n2 rack2n0 rack2n1 rack2n2",
		"[1-2][08-10]":                         "108 109 110 208 209 210",
		"n[8-11]":                              "n8 n9 n10 n11",
		"n[08-11]":                             "n08 n09 n10 n11",
		"n[098-101]":                           "n098 n099 n100 n101",
		"n[98-101]":                            "n98 n99 n100 n101",
		"n[0,00,000]":                          "n0 n00 n000",
		"n[3,1,2-3]":                           "n3 n1 n2",
		"b,a , b\n,c":                          "b a c",
		"n[999999999999999999]":                "n999999999999999999",
		"52:54:00:ab:01:02":                    "52:54:00:ab:01:02",
		"10.0.0.7,fe80::1%eth0":                "10.0.0.7 fe80::1%eth0",
		"0b2f0d3e-6f1c-4a57-9d0e-1234abcd5678": "0b2f0d3e-6f1c-4a57-9d0e-1234abcd5678",
		"n-1-3":                                "n-1-3",
		"knoten-ä[1-2]":                        "knoten-ä1 knoten-ä2",
	} {
		got, err := hostlist.Parse(s)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("Parse(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for s, want := range map[string]string{
		"n[0-3":                                 `at position 6: expected "-", "," or "]" and found the end`,
		"n[0-3-5]":                              `at position 6: expected "," or "]" after a range and found "-"`,
		"n[":                                    `at position 3: expected a number and found the end`,
		"n[]":                                   `at position 3: expected a number and found "]"`,
		"n[a-b]":                                `at position 3: expected a number and found "a"`,
		"n[1-]":                                 `at position 5: expected a number and found "]"`,
		"n[1,]":                                 `at position 5: expected a number and found "]"`,
		"n[1 -2]":                               `at position 4: expected "-", "," or "]" and found " "`,
		"n[1[2]]":                               `at position 4: expected "-", "," or "]" and found "["`,
		"n1]":                                   `at position 3: expected a name or "," and found "]"`,
		"n1,,n2":                                `at position 4: expected a name and found ","`,
		"n1,":                                   `at position 4: expected a name and found the end`,
		",":                                     `at position 1: expected a name and found ","`,
		"n1 n2":                                 `at position 4: expected "," after a space and found "n"`,
		"n[5-3]":                                `at position 5: expected a number not less than 5 and found 3`,
		"n[01-3]":                               `at position 6: expected 03, with as many digits`,
		"n[1-010]":                              `at position 5: expected 10, with as many digits`,
		"n[1-1000001]":                          `at position 1: expected at most 1000000 names`,
		"n[0-999999],x":                         `at position 13: expected at most 1000000 names`,
		"x,a[0-999]b[0-1000]":                   `at position 3: expected at most 1000000 names`,
		"n[0-999999999999999999]":               `at position 1: expected at most 1000000 names`,
		"n[0-9999999999999999999999]":           `at position 5: expected a number of at most 18 digits and found one of 22`,
		strings.Repeat("[1]", 17):               `at position 49: expected at most 16 brackets`,
		strings.Repeat("n", 1000) + "[0-99999]": `at position 1: expected at most 67108864 bytes`,
	} {
		got, err := hostlist.Parse(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%.40q) = %.3q, %v, want the error %q", s, got, err, want)
		} else if len(err.Error()) > 250 {
			t.Errorf("Parse(%.40q): an error of %d bytes", s, len(err.Error()))
		}
	}
}

func TestFold(t *testing.T) {
	for names, want := range map[string]string{
		"":                           "",
		"n1":                         "n1",
		"n9 n10 n8 n2 n8 n11":        "n[2,8-11]",
		"n09 n10 n9 n099 n100":       "n[9,09-10,099-100]",
		"n08 n09 n10 n99 n100":       "n[08-10,99-100]",
		"gpu01x gpu02x login gpu04x": "gpu[01-02,04]x,login",
		"rack1n0 rack2n1 rack1n1 rack2n0 rack2n2":   "rack1n[0-1],rack2n[0-2]",
		"rack1n0 rack2n1 rack1n1 rack2n0":           "rack[1-2]n[0-1]",
		"n1-ib0 n2-ib0 n3-ib0":                      "n[1-3]-ib0",
		"10.0.0.1 10.0.0.2 10.0.1.1 10.0.1.2":       "10.0.[0-1].[1-2]",
		"n10a n2b n1 x n1a":                         "n1,n[1,10]a,n2b,x",
		"7 8 9 10":                                  "[7-10]",
		"52:54:00:ab:01:02":                         "52:54:00:ab:01:02",
		"n1999 n2000 n2001":                         "n[1999-2001]",
		"12345678901234567890 12345678901234567891": "12345678901234567890,12345678901234567891",
		"a1b,c a1b ab":                              "a1b,a1b,c,ab",
		"1x2y x,y":                                  "1x2y,x,y",
	} {
		in := strings.Split(names, " ")
		for range 5 {
			if got := hostlist.Fold(in); got != want {
				t.Errorf("Fold(%q) = %q, want %q", in, got, want)
			}
			rand.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
		}
	}
}

// TestFoldParse: what is folded unfolds to the same set.
func TestFoldParse(t *testing.T) {
	name := rapid.OneOf(
		rapid.StringMatching(`[ab]?[0-9]{1,3}[-.]?[0-9]{0,2}c?`),
		rapid.StringMatching(`n0{0,2}(9|10|99|100|[0-9])`),
		rapid.StringMatching(`([0-9]{1,2}[x.]){0,12}[0-9]{0,20}`),
		rapid.String(),
	).Filter(func(s string) bool { return s != "" && !strings.ContainsAny(s, ",[] \t\r\n") })
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(name, 0, 60).Draw(t, "names")
		folded := hostlist.Fold(names)
		got, err := hostlist.Parse(folded)
		if err != nil {
			t.Fatalf("Fold(%q) = %q: %v", names, folded, err)
		}
		if again := hostlist.Fold(got); again != folded {
			t.Errorf("%q folds to %q once unfolded", folded, again)
		}
		slices.Sort(got)
		slices.Sort(names)
		if want := slices.Compact(names); !slices.Equal(got, want) {
			t.Errorf("Parse(%q) = %q, want %q", folded, got, want)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "n[0-3,7-9],gpu[01-04]x,rack[1-2]n[0-3]", "n[08-11]", "52:54:00:ab:01:02,::1", "n[0-9999999]", "n[1-", "[[", "]", ",", "n[1-2]]",
		"n[0-99][0-99][0-99][0-99]", "a b", "n[000000000000000001-2]", "\xff[1]\x00", strings.Repeat("[0-1]", 16),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, err := hostlist.Parse(s)
		if err != nil {
			return
		}
		if len(names) > hostlist.MaxNames {
			t.Fatalf("%d names", len(names))
		}
		if len(names) > 10_000 {
			return
		}
		again, err := hostlist.Parse(hostlist.Fold(names))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		slices.Sort(again)
		if !slices.Equal(names, again) {
			t.Errorf("%q became %q", names, again)
		}
	})
}

// Nothing may grow faster than the list does: each of these takes some
// milliseconds, and minutes if it is quadratic.
func TestLarge(t *testing.T) {
	shapes := map[string]func(i int) string{
		"one range":  func(i int) string { return fmt.Sprintf("n%d", i) },
		"holes":      func(i int) string { return fmt.Sprintf("n%d", 2*i) },
		"two":        func(i int) string { return fmt.Sprintf("r%03dn%02d", i/50, i%50) },
		"addresses":  func(i int) string { return fmt.Sprintf("52:54:%02x:%02x:%02x:01", i>>16, i>>8&255, i&255) },
		"unrelated":  func(i int) string { return fmt.Sprintf("%x-%x", i*2654435761, i*40503) },
		"long names": func(i int) string { return strings.Repeat("1a", 100) + fmt.Sprint(i) },
	}
	for shape, name := range shapes {
		names := make([]string, 20_000)
		for i := range names {
			names[i] = name(i)
		}
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		start := time.Now()
		folded := hostlist.Fold(names)
		fold := time.Since(start)
		got, err := hostlist.Parse(folded)
		if err != nil || len(got) != len(names) {
			t.Errorf("%s: %d names, %v", shape, len(got), err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s took %s", shape, took)
		}
		t.Logf("%s: folded in %s to %d bytes", shape, fold, len(folded))
	}
	if names, err := hostlist.Parse("n[0-999999]"); err != nil || len(names) != hostlist.MaxNames {
		t.Errorf("%d names, %v", len(names), err)
	}
}

func BenchmarkFold(b *testing.B) {
	names, err := hostlist.Parse("rack[001-400]n[01-50]")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		hostlist.Fold(names)
	}
}

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		if _, err := hostlist.Parse("rack[001-400]n[01-50]"); err != nil {
			b.Fatal(err)
		}
	}
}
