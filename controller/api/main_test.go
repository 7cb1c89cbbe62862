package api_test

import (
	"flag"
	"io"
	"net/http"
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

func readAll(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
