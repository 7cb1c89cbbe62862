package initramfs

import (
	"bytes"
	"os"
	"slices"
	"testing"
	"time"

	"muster/initramfs/modindex"
)

// TestRealKernel packs the modules of a real kernel, when MUSTER_TEST_MODULES
// names its lib/modules/VERSION directory.
func TestRealKernel(t *testing.T) {
	dir := os.Getenv("MUSTER_TEST_MODULES")
	if dir == "" {
		t.Skip("MUSTER_TEST_MODULES is not set")
	}
	var b bytes.Buffer
	began := time.Now()
	report, err := Modules(&b, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d modules, %d bytes, %d compressed, %v", report.Release, len(report.Included), report.Bytes, b.Len(), time.Since(began))
	t.Logf("built in: %v\nmissing: %v", report.BuiltIn, report.Missing)
	files := unpack(t, b.Bytes())
	ix, err := modindex.Parse(bytes.NewReader(files[modindex.Path(report.Release)].data))
	if err != nil {
		t.Fatal(err)
	}
	if got := ix.Match("virtio:d00000001v00001AF4"); !slices.Contains(append(got, report.BuiltIn...), "virtio_net") {
		t.Errorf("a virtio network card matches %v", got)
	}
	checkOrder(t, ix, files)
}
