// Package filesystemtest gives tests a file system that is full soon.
package filesystemtest

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Small mounts a file system of so many bytes, in memory, until the test ends.
// It needs root.
func Small(tb testing.TB, bytes int64) string {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("only root may mount a file system")
	}
	dir := tb.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", bytes)); err != nil {
		tb.Fatalf("a file system of %d bytes: %v", bytes, err)
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			tb.Error(err)
		}
	})
	return dir
}
