package api_test

import (
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"testing"

	"muster/controller/registry"
	"muster/shared/kind"
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

var author = kind.Author{Name: "tester"}

func input(body string) (in registry.Input) {
	if err := json.Unmarshal([]byte(body), &in); err != nil {
		panic(err)
	}
	return in
}
