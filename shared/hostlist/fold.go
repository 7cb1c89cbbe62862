package hostlist

import (
	"cmp"
	"slices"
	"strings"
)

// maxDimensions is how many numbers of a name may be folded, the last ones:
// each is one pass over the names.
const maxDimensions = 8

// Fold writes names as a short list: each name once, in natural order (n2
// before n10), so that Parse gives the same set. Empty names are left out. Names
// that a list cannot hold (with a comma, a bracket or a space) are written as
// they are.
func Fold(names []string) string {
	groups := map[string]*group{}
	for _, name := range names {
		switch {
		case name == "":
		case strings.ContainsAny(name, specials):
			groups["["+name] = &group{texts: []string{name}, rows: [][]string{nil}}
		default:
			split(name, groups)
		}
	}
	var items []folded
	for _, g := range groups {
		items = g.fold(items)
	}
	slices.SortFunc(items, func(a, b folded) int { return Compare(a.first, b.first) })
	var b strings.Builder
	for i, it := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(it.text)
	}
	return b.String()
}

// group is names that differ only in their numbers.
type group struct {
	texts []string   // around the numbers: one more than there are numbers
	rows  [][]string // the numbers of each name, as digits
}

// folded is one item of the list, and the first name that it stands for.
type folded struct {
	text, first string
}

// split puts a name into its group.
func split(name string, groups map[string]*group) {
	type run struct{ from, to int }
	runs := make([]run, 0, maxDimensions)
	for i := 0; i < len(name); {
		if !isDigit(name[i]) {
			i++
			continue
		}
		from := i
		for i < len(name) && isDigit(name[i]) {
			i++
		}
		if i-from <= maxDigits {
			runs = append(runs, run{from, i})
		}
	}
	runs = runs[max(0, len(runs)-maxDimensions):]
	key := make([]byte, 0, len(name)+len(runs))
	row, at := make([]string, 0, len(runs)), 0
	for _, r := range runs {
		key = append(append(key, name[at:r.from]...), ',') // no name here has one
		row = append(row, name[r.from:r.to])
		at = r.to
	}
	key = append(key, name[at:]...)
	g := groups[string(key)]
	if g == nil {
		g = &group{texts: strings.Split(string(key), ",")}
		groups[string(key)] = g
	}
	g.rows = append(g.rows, row)
}

// fold merges rows along one number after the other, the last first: rows that
// are equal in all other columns become one, with the set of what they had in
// that column. The sets stay disjoint, so nothing is added and nothing lost.
func (g *group) fold(items []folded) []folded {
	rows := g.rows
	if len(g.texts) == 1 {
		rows = rows[:1] // the same name over and over
	}
	for column := len(g.texts) - 2; column >= 0; column-- {
		rows = mergeColumn(rows, column)
	}
	for _, row := range rows {
		var text, first strings.Builder
		for i, t := range g.texts {
			text.WriteString(t)
			first.WriteString(t)
			if i == len(row) {
				break
			}
			n := strings.IndexAny(row[i], "-,")
			if n < 0 {
				text.WriteString(row[i])
				first.WriteString(row[i])
				continue
			}
			text.WriteString("[" + row[i] + "]")
			first.WriteString(row[i][:n])
		}
		items = append(items, folded{text.String(), first.String()})
	}
	return items
}

// mergeColumn merges the rows that differ only in that column.
func mergeColumn(rows [][]string, column int) [][]string {
	type set struct {
		row    []string
		values []string
	}
	sets := map[string]*set{}
	var order []*set
	var key []byte
	for _, row := range rows {
		key = key[:0]
		for i, v := range row {
			if i != column {
				key = append(append(key, v...), '/')
			}
		}
		s := sets[string(key)]
		if s == nil {
			s = &set{row: row}
			sets[string(key)] = s
			order = append(order, s)
		}
		s.values = append(s.values, row[column])
	}
	merged := make([][]string, len(order))
	for i, s := range order {
		s.row[column] = ranges(s.values)
		merged[i] = s.row
	}
	return merged
}

// ranges writes numbers, given as digits, as in brackets. Numbers of the same
// length in digits are in the order of their text, and 99 is followed by 100:
// that is also how Parse counts on from the first number of a range.
func ranges(values []string) string {
	slices.SortFunc(values, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	values = slices.Compact(values)
	var b strings.Builder
	for i := 0; i < len(values); {
		last := i
		for last+1 < len(values) && follows(values[last], values[last+1]) {
			last++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(values[i])
		if last > i {
			b.WriteByte('-')
			b.WriteString(values[last])
		}
		i = last + 1
	}
	return b.String()
}

// follows tells whether b is the number after a, written in the same width.
func follows(a, b string) bool {
	n := len(strings.TrimRight(a, "9")) // the digit before the nines is counted up
	nines := len(a) - n
	if n == 0 {
		return len(b) == len(a)+1 && b[0] == '1' && strings.Trim(b[1:], "0") == ""
	}
	return len(b) == len(a) && b[:n-1] == a[:n-1] && b[n-1] == a[n-1]+1 && strings.Count(b[n:], "0") == nines
}

// Compare orders names so that numbers in them count as numbers: n2 comes
// before n10.
func Compare(a, b string) int {
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		if !isDigit(a[i]) || !isDigit(b[j]) {
			if a[i] != b[j] {
				return cmp.Compare(a[i], b[j])
			}
			i++
			j++
			continue
		}
		x, y := digits(a[i:]), digits(b[j:])
		i += len(x)
		j += len(y)
		x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
			return c
		}
	}
	return cmp.Or(cmp.Compare(len(a)-i, len(b)-j), strings.Compare(a, b))
}

func digits(s string) string {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return s[:n]
}
