package cli

import (
	"bufio"
	"os"
	"strings"

	"golang.org/x/term"
)

// narrow is the fewest cells to which a column is cut.
const narrow = 8

// table writes rows in columns, the first row as the heading. On a terminal
// the widest columns are cut so that a row stays on its line; elsewhere nothing
// is.
func (m *muster) table(rows [][]string) error {
	widths := []int{}
	for _, row := range rows {
		for i, cell := range row {
			row[i] = printable(cell)
			if row[i] == "" {
				row[i] = "-" // so that columns can be counted
			}
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], cells(row[i]))
		}
	}
	if w := m.width(); w > 0 {
		fit(widths, w)
	}
	out := bufio.NewWriter(m.Stdout)
	for _, row := range rows {
		for i, cell := range row {
			cell = clip(cell, widths[i])
			out.WriteString(cell)
			if i < len(row)-1 {
				out.WriteString(strings.Repeat(" ", widths[i]-cells(cell)+2))
			}
		}
		out.WriteByte('\n')
	}
	return out.Flush()
}

// fit narrows the widest columns until all have room in total, or none can be
// narrowed any more.
func fit(widths []int, total int) {
	sum := 2 * (len(widths) - 1)
	for _, w := range widths {
		sum += w
	}
	for ; sum > total; sum-- {
		widest := 0
		for i, w := range widths {
			if w > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= narrow {
			return
		}
		widths[widest]--
	}
}

// width is that of the terminal written to, 0 when it is none.
func (m *muster) width() int {
	f, ok := m.Stdout.(*os.File)
	if !ok {
		return 0
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return w
}
