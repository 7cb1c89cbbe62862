package app

import (
	"bufio"
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settled is when the agent has done all that it does once.
const settled = 30 * time.Second

// releaseStart gives back the pages of the program that only its start took:
// most of it. What is used on is read again, from the page cache.
func releaseStart(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(settled):
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		from, size, ok := ownText(s.Text(), self)
		if ok {
			// Only a hint: nothing is lost where the kernel does not take it.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, size, unix.MADV_DONTNEED)
		}
	}
}

// ownText reads a line of /proc/self/maps: is it a part of the program that
// was never written, so that its file still has it?
func ownText(line, self string) (from, size uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) != 6 || f[5] != self || f[1][1] != '-' {
		return 0, 0, false
	}
	a, b, _ := strings.Cut(f[0], "-")
	begin, err := strconv.ParseUint(a, 16, strconv.IntSize)
	if err != nil {
		return 0, 0, false
	}
	end, err := strconv.ParseUint(b, 16, strconv.IntSize)
	return uintptr(begin), uintptr(end - begin), err == nil && end > begin
}
