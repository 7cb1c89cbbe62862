package apitest

import (
	"testing"
	"time"
)

// patience is how long a test waits for what has to come. It is for failures
// only: then the test says where it hung, long before go test gives up.
const patience = time.Minute

// Receive waits for what comes on a channel, or for its end.
func Receive[T any](tb testing.TB, from <-chan T) T {
	tb.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case v := <-from:
		return v
	case <-late.C:
		tb.Fatalf("nothing came for %v", patience)
		panic("not reached")
	}
}
