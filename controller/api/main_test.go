package api_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain makes the random tests short; the command line may ask for more.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "10"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
