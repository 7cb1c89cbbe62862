package modindex

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func sample() *Index {
	return &Index{
		Release: "6.1.0-56-amd64",
		Modules: []Module{
			{Name: "crc32c_generic", Path: "kernel/crypto/crc32c_generic.ko"},
			{Name: "failover", Path: "kernel/net/core/failover.ko"},
			{Name: "net_failover", Path: "kernel/drivers/net/net_failover.ko", Needs: []Need{{Name: "failover"}}},
			{Name: "virtio_net", Path: "kernel/drivers/net/virtio_net.ko", Needs: []Need{{Name: "failover"}, {Name: "net_failover"}}},
			{Name: "xfs", Path: "kernel/fs/xfs/xfs.ko", Needs: []Need{{Name: "crc32c_generic", Optional: true}}},
		},
		Boot:    []string{"xfs"},
		BuiltIn: []string{"squashfs"},
		Aliases: []Alias{{"virtio:d00000001v*", "virtio_net"}, {"fs-xfs", "xfs"}, {"pci:v00001AF4d0000100[0-3]sv*", "virtio_net"}},
	}
}

func TestRoundTrip(t *testing.T) {
	var b bytes.Buffer
	if err := sample().Write(&b); err != nil {
		t.Fatal(err)
	}
	ix, err := Parse(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	want := sample()
	if err := want.check(); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(ix, want) {
		t.Fatalf("read back:\n%+v\nwant\n%+v", ix, want)
	}
}

func TestOrder(t *testing.T) {
	ix := sample()
	if err := ix.check(); err != nil {
		t.Fatal(err)
	}
	steps, unknown := ix.Order("virtio-net", "xfs", "net_failover", "squashfs")
	var got []string
	for _, s := range steps {
		mark := ""
		if s.Optional {
			mark = "?"
		}
		got = append(got, mark+s.Name)
	}
	if want := "failover net_failover virtio_net ?crc32c_generic xfs"; strings.Join(got, " ") != want {
		t.Errorf("order %v, want %s", got, want)
	}
	if !slices.Equal(unknown, []string{"squashfs"}) {
		t.Errorf("unknown %v", unknown)
	}
	// Asked for by itself, it is no longer optional.
	if steps, _ := ix.Order("xfs", "crc32c_generic"); steps[0].Optional {
		t.Error("crc32c_generic was asked for and is optional")
	}
}

func TestMatch(t *testing.T) {
	ix := sample()
	if err := ix.check(); err != nil {
		t.Fatal(err)
	}
	for modalias, want := range map[string]string{
		"virtio:d00000001v00001AF4\n": "virtio_net",
		"virtio:d00000002v00001AF4":   "",
		"fs-xfs":                      "xfs",
		"fs_xfs":                      "xfs",
		"pci:v00001AF4d00001002sv00001AF4sd00000005bc02sc00i00": "virtio_net",
		"pci:v00001AF4d00001004sv00001AF4sd00000005bc02sc00i00": "",
		"": "",
	} {
		if got := strings.Join(ix.Match(modalias), " "); got != want {
			t.Errorf("%q matches %q, want %q", modalias, got, want)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"a", "", false}, {"a*b*c", "a/x/b.c.c", true}, {"a*b*c", "abcd", false},
		{"?[!0-9]*", "ab", true}, {"?[!0-9]*", "a1", false}, {"[]x]", "]", true}, {"[a-", "[a-", true}, {"[a-]", "-", true},
		{"dmi:bvnIBM:bvrI[MU]ET??WW*", "dmi:bvnIBM:bvrIUET42WW(1.0)", true},
		{strings.Repeat("*a", 200), strings.Repeat("a", 5000) + "b", false},
	} {
		if got := glob(c.pattern, c.text); got != c.want {
			t.Errorf("glob(%.40q, %.40q) = %v", c.pattern, c.text, got)
		}
	}
	if got := canonicalPattern("a-[0-9]-b"); got != "a_[0-9]_b" {
		t.Errorf("canonical pattern %q", got)
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "no kernel release",
		"muster-modules 2\nkernel 6\n":          "line 1",
		"muster-modules 1\nkernel ../6\n":       "kernel release",
		"muster-modules 1\nkernel 6\nfoo bar\n": "line 3",
		"muster-modules 1\nkernel 6\nmodule a ../../a.ko\n":                "cannot be used",
		"muster-modules 1\nkernel 6\nmodule a a.ko b\n":                    "needs \"b\"",
		"muster-modules 1\nkernel 6\nmodule a a\nmodule a a\n":             "twice",
		"muster-modules 1\nkernel 6\nboot a\n":                             "not listed",
		"muster-modules 1\nkernel 6\nalias x a\n":                          "not listed",
		"muster-modules 1\nkernel 6\nboot " + strings.Repeat("x", maxLine): "line 2",
	} {
		if _, err := Parse(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	var b bytes.Buffer
	if err := sample().Write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes(), "virtio:d00000001v*")
	f.Add([]byte("muster-modules 1\nkernel 6\nmodule a a ?a\nboot a\nalias [ a\n"), "[")
	f.Fuzz(func(t *testing.T, b []byte, modalias string) {
		ix, err := Parse(bytes.NewReader(b))
		if err != nil {
			return
		}
		steps, _ := ix.Order(append(ix.Match(modalias), ix.Boot...)...)
		if len(steps) > len(ix.Modules) {
			t.Fatalf("%d steps for %d modules", len(steps), len(ix.Modules))
		}
		var out bytes.Buffer
		if err := ix.Write(&out); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := Parse(&out); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}
