package api_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	"muster/controller/api/apitest"
	"muster/shared/kind"
	"muster/shared/object"
)

// sample holds, for a format, two values that are taken and some that are not.
type sample struct {
	good [2]any
	bad  []any
}

// samples gives values for a field. n makes those different that must be.
func samples(t testing.TB, spec *kind.Spec, f *kind.Field, n int) sample {
	if !f.Required { // null and "" unset it, so that they are no mistakes
		optional := *f
		optional.Required = true
		s := samples(t, spec, &optional, n)
		s.bad = slices.DeleteFunc(s.bad, func(v any) bool { return v == nil || v == "" })
		return s
	}
	switch spec.Name + "." + f.Path { // values that must fit together
	case "net.first_ip":
		return sample{[2]any{"10.0.0.10", "10.0.0.20"}, []any{"10.0.0.256", "10.0.0", "fe80::1%eth0", 5, []string{}}}
	case "net.ip_count":
		return sample{[2]any{10, 20}, []any{0, -1, 1000, "ten", 1.5, json.Number("1e3"), json.Number("99999999999999999999")}}
	case "net.mask_bits":
		return sample{[2]any{24, 16}, []any{0, 33, 129, "24", nil}}
	case "net.router_ip", "net.gateway_ip":
		return sample{[2]any{"10.0.0.1", "10.0.0.2"}, []any{"router", 1}}
	}
	switch f.Format.Name {
	case "text":
		return sample{[2]any{"one", "two\n\tlines, <é> & \"quotes\""}, []any{5, true, []string{"a"}, "\x01", "\u0085", strings.Repeat("x", kind.MaxText+1)}}
	case "line":
		return sample{[2]any{"one", "two <é>"}, []any{5, "a\nb", apitest.Map{}, strings.Repeat("x", 4097)}}
	case "file":
		return sample{[2]any{"a.ks", "sub/b.cfg"}, []any{5, "../a", "/a", ".a", "a\\b", "a\x00", "a//b", strings.Repeat("x", 256)}}
	case "hostname":
		return sample{[2]any{fmt.Sprintf("alpha%d", n), fmt.Sprintf("Beta_%d.example.org", n)}, append([]any{
			5, nil, "a/b", "a b", "-a", "a-", ".a", "a..b", "é", "a\n", "a\x00", "10.0.0.1", "fe80::1", "*", someUID, strings.Repeat("a", 64), strings.Repeat("a.", 100) + "a", "", []string{"a"}}, words(spec)...)}
	case "name":
		return sample{[2]any{fmt.Sprintf("alpha%d", n), fmt.Sprintf("Beta é_%d", n)}, append([]any{
			5, nil, "a/b", "a:b", " a", "a ", ".a", "a%", "a\nb", someUID, strings.Repeat("a", kind.MaxName+1), "", []string{"a"}}, words(spec)...)}
	case "boolean":
		return sample{[2]any{true, false}, []any{"true", 1, "yes", []bool{true}}}
	case "integer":
		return sample{[2]any{7, 8}, []any{"7", -1, 1.5, json.Number("7.0"), json.Number("1e2"), json.Number("99999999999999999999"), true}}
	case "choice":
		return sample{[2]any{f.Format.Values[0], f.Format.Values[1]}, []any{"nonsense", 3, strings.ToUpper(f.Format.Values[0]), f.Format.Values}}
	case "ip":
		return sample{[2]any{"10.9.8.7", "fd00::1"}, []any{"10.9.8.256", "localhost", 5, "10.9.8.7/24"}}
	case "mac":
		return sample{[2]any{fmt.Sprintf("52:54:00:00:%02x:01", n), fmt.Sprintf("52:54:00:00:%02x:02", n)}, []any{"52:54:00:00:00", "zz", 5, nil, "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", ""}}
	case "key-values":
		return sample{[2]any{apitest.Map{"a": "b"}, apitest.Map{"n": json.Number("1.50"), "big": json.Number("123456789012345678901234567890"), "t": true, "<x>": "é"}},
			[]any{apitest.Map{"a": apitest.Map{}}, apitest.Map{"a": []int{}}, apitest.Map{"a": nil}, apitest.Map{"": 1}, []string{}, "x", 5, apitest.Map{"a\n": 1}}}
	case "object":
		return sample{[2]any{apitest.Map{"x": []any{json.Number("1e400"), apitest.Map{"y": nil}}}, apitest.Map{"z": 1}}, []any{[]string{}, "x", 5, true}}
	case "reference":
		return sample{[2]any{"other", "second"}, []any{"nobody", 5, []string{"other"}, someUID, strings.Repeat("x", 200)}}
	case "references":
		return sample{[2]any{[]string{"other", "second"}, []string{"second"}}, []any{[]string{"nobody"}, []any{nil}, 5, apitest.Map{}, []any{"other", 5}}}
	case "roles":
		return sample{[2]any{[]string{"role.authuser"}, []string{"role.fulladmin", "role.authuser"}}, []any{"admin", 5, []string{"role."}, []any{nil}}}
	case "ssh-keys":
		return sample{[2]any{[]string{sshKey}, []string{strings.Replace(sshKey, "jo@desk", "jo@home", 1)}}, []any{"ssh-rsa nonsense", private, 5, []any{5}, []string{sshKey + "\n" + sshKey}}}
	case "pattern":
		return sample{[2]any{fmt.Sprintf("x%d-{}", n), fmt.Sprintf("x%d-{:03d}b", n)}, []any{"x", "{}", "x{}{}", "x{:3d}", "x{:03x}", "x {}", "x..{}", 5, nil, "", strings.Repeat("x", 60) + "{}"}}
	case "selector":
		return sample{[2]any{"up and h[ram_total] > 100GB", `name in n[0-3] or %gpu`}, []any{"up and", "idx[", "h[x] >", 5, nil, "", []string{"up"}}}
	case "repo-urls":
		return sample{[2]any{[]any{"http://a.example/debian trixie main contrib", "https://b.example/el$releasever/"}, []any{"file:///srv/a", "file:///srv/a"}},
			[]any{5, "ftp:", "javascript:alert(1)", "http://", "http://u:p@a.example/", "http://a.example/\ngpgcheck=0", "http://a.example/ su[ite", "http://a.example/ x y\nz", []any{"http://a.example/", 5}, strings.Repeat("x", 3000)}}
	case "mirror-urls":
		return sample{[2]any{[]any{"http://a.example/", ""}, []any{"https://b.example/list?arch=$basearch"}}, []any{5, "a b", "http://a.example/\nx=y", "http://u@a.example/", apitest.Map{}}}
	case "flags":
		return sample{[2]any{[]any{true, true, false}, []any{false}}, []any{5, "maybe", []any{nil}, []any{"true", 1}, apitest.Map{}}}
	case "repo-keys":
		return sample{[2]any{[]any{"https://a.example/key.asc", "", "/etc/pki/rpm-gpg/KEY"}, []any{object.Armor + "\n\nmDMEZx\n=AbCd\n-----END PGP PUBLIC KEY BLOCK-----"}},
			[]any{5, private, "nonsense", "/etc/a\nb", object.Armor, object.Armor + "\n\x01\n-----END PGP PUBLIC KEY BLOCK-----", "http://a.example/\nx=y"}}
	case "entitlement":
		return sample{[2]any{"1234567890", "/etc/pki/entitlement/1-key.pem"}, []any{5, "a b", "a\nb", "/etc/../x", "-x", strings.Repeat("1", 300)}}
	case "git-url":
		return sample{[2]any{"https://example.org/a/b.git", "git@example.org:b.git"}, []any{5, "ext::sh -c id", "--upload-pack=id", "https://-x/y", "ftp://example.org/x", "https://example.org", "ssh://-oProxyCommand=x/y", "a b", "file://../x", "/a/../b"}}
	case "branch-map":
		return sample{[2]any{[]string{"main:master", "feature/x"}, []string{"release-1.0"}}, []any{5, []any{5}, "a:b:c", "-x", "a..b", []string{"a:b", "a:c"}, "refs/../x", ".git", "x.lock", "a b", "@{u}"}}
	case "period":
		return sample{[2]any{600, "10m"}, []any{"10x", "1h30m", "-5m", -5, 1.5, "m", true, []int{5}, "99999999d"}}
	case "identifier":
		return sample{[2]any{"one", "4711"}, []any{-5, 1.5, "a\nb", apitest.Map{}, true}}
	case "uid":
		return sample{[2]any{fmt.Sprintf("%032d", n), fmt.Sprintf("a%031d", n)}, []any{"x", 5, nil, strings.ToUpper(someUID), someUID + "0"}}
	case "overlay-files":
		file := func(path, mode, content string) apitest.Map {
			return apitest.Map{"path": path, "mode": mode, "content": content}
		}
		return sample{[2]any{[]any{file("/etc/motd", "0644", "<name> in <a[rack]>\n"), file("/etc/x", "4755", "")}, []any{file("/etc/y", "600", "é")}},
			[]any{5, "x", file("etc/motd", "", ""), file("/etc/../x", "", ""), file("/", "", ""), file("/proc/x", "", ""), file("/etc/machine-id", "", ""), file("/x", "9", ""), file("/x", "", "<a()>"),
				apitest.Map{"path": "/x", "nonsense": 1}, apitest.Map{"path": "/x", "owner": "a b"}, []any{file("/x", "", ""), file("/x", "", "")}, file("/x", "", strings.Repeat("x", 300<<10)), apitest.Map{"path": "/x", "hidden": true}}}
	case "ssh-key":
		return sample{[2]any{sshKey, strings.Replace(sshKey, "jo@desk", "head2", 1)}, []any{"ssh-rsa nonsense", private, 5, sshKey + "\n" + sshKey}}
	case "certificates":
		ca := authority(t)
		return sample{[2]any{ca, ca + ca}, []any{"PEM", private, 5, ca + "more", strings.ReplaceAll(ca, "CERTIFICATE", "PRIVATE KEY"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}}
	case "url":
		return sample{[2]any{"https://head2:8443", "http://10.0.0.2"}, []any{"head2", "ftp://head2", "https://", "https://a/b", "https://u:p@a", "https://a?b", "https://a#b", 5, "https://a\nb"}}
	case "addresses":
		return sample{[2]any{[]string{"10.0.0.2"}, []string{"10.0.0.3", "fd00::3"}}, []any{"127.0.0.2", "::1", "0.0.0.0", "224.0.0.1", "head2", 5, []any{nil}}}
	case "domain":
		return sample{[2]any{"example.org", "a-b.c"}, []any{"-a", "a b", "a..b", 5, strings.Repeat("a", 64) + ".b"}}
	}
	t.Fatalf("%s.%s: this test has no samples of the format %q", spec.Name, f.Path, f.Format.Name)
	return sample{}
}

func words(spec *kind.Spec) (out []any) {
	for _, w := range spec.Words() {
		out = append(out, w)
	}
	return out
}

// body gives the fields that a new object of the kind needs.
func body(t testing.TB, spec *kind.Spec, n int) apitest.Map {
	out := apitest.Map{}
	for _, f := range spec.Fields {
		if f.Required {
			out[f.Path] = samples(t, spec, &f, n).good[0]
		}
	}
	if spec.Name == object.KindHostname {
		out["ip"] = fmt.Sprintf("10.1.1.%d", n)
	}
	return out
}

// alone are the fields that can be set whatever the others hold. Those of a
// hostname depend on its type, which has a test of its own.
func alone(spec *kind.Spec) []kind.Field {
	out := spec.Writable()
	if spec.Name == object.KindHostname {
		out = slices.DeleteFunc(out, func(f kind.Field) bool {
			return slices.Contains([]string{"type", "ip", "target", "port", "service", "proto", "weight", "priority"}, f.Path)
		})
	}
	return out
}

// puts says whether objects of the kind can be replaced whole.
func puts(spec *kind.Spec) bool { return !spec.Singleton && !spec.NoPut }

// authority is the certificate of some authority, PEM.
func authority(t testing.TB) string {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// follows are the fields that follow from another one.
func follows(f *kind.Field) []string {
	switch f.Path {
	case "naming_pool":
		return []string{"name", "index", "ip", "hostname", "domain"}
	case "selector":
		return []string{"parsed"}
	}
	return nil
}

func merged(a, b apitest.Map) apitest.Map {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

func specOf(name string) *kind.Spec {
	all := object.All()
	return all[slices.IndexFunc(all, func(s *kind.Spec) bool { return s.Name == name })]
}

func pluralOf(name string) string { return specOf(name).Plural }
