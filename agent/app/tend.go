package app

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The agent takes memory from those who compute: it collects garbage early,
// and from heapLimit bytes on all the time.
const (
	gcPercent = 25
	heapLimit = 12 << 20
)

const (
	// settled is when the agent has done all that it does once, or that somebody
	// asked of it.
	settled = 30 * time.Second
	// growth is how many bytes an agent that has settled takes until it collects
	// garbage again: at some KB for each report that is most of an hour.
	growth = 1 << 20
	// slack is how late the agent's threads may be woken by a timer. Go's monitor
	// thread would else wake up every 70 µs while there is something to do, and
	// cost more than that does.
	slack = time.Millisecond
)

// tend keeps an agent quiet that has nothing to do. It gives back the memory
// that was of use once, and then collects garbage only when the agent has grown:
// a collection takes milliseconds, and the runtime would make one every two
// minutes at least. An agent that grows is at work, and goes by the runtime's
// ways until it has settled again.
func tend(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settled):
		}
		debug.FreeOSMemory()
		releaseProgram()
		collected := make(chan struct{})
		runtime.AddCleanup(new([32]byte), func(c chan struct{}) { close(c) }, collected)
		debug.SetMemoryLimit(inUse() + growth)
		debug.SetGCPercent(-1)
		select {
		case <-ctx.Done():
			return
		case <-collected:
		}
		bound()
	}
}

// bound holds an agent at work to little memory.
func bound() {
	debug.SetMemoryLimit(heapLimit)
	debug.SetGCPercent(gcPercent)
}

// inUse is what counts for the memory limit, in bytes.
func inUse() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}

// loosen gives all threads of the agent their slack; those to come inherit it.
// It may be refused without harm.
func loosen() {
	threads, _ := filepath.Glob("/proc/self/task/*")
	for _, t := range threads {
		file := filepath.Join("/proc", filepath.Base(t), "timerslack_ns")
		_ = os.WriteFile(file, strconv.AppendInt(nil, slack.Nanoseconds(), 10), 0)
	}
}

// releaseProgram gives back the pages of the program that only the past took:
// most of it. What is used on is read again, from the page cache.
func releaseProgram() {
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
