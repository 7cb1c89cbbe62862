package provision_test

import (
	"strings"
	"testing"

	"muster/controller/api/apitest"
	"muster/shared/object"
)

func (s *site) bootconfig(t *testing.T, doc apitest.Map) (*object.Bootconfig, *object.Node) {
	t.Helper()
	doc["name"] = "b"
	s.OK("PUT", "/bootconfig/b", doc)
	bc, err := s.Registry.Find(object.KindBootconfig, "b")
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Registry.Find(object.KindNode, "n0")
	if err != nil {
		t.Fatal(err)
	}
	return bc.(*object.Bootconfig), n.(*object.Node)
}

func TestCmdline(t *testing.T) {
	const head = "http://10.0.0.1:8080"
	s := start(t, head)
	s.Create("bootconfigs", `{"name":"b"}`)
	s.Create("repos", `{"name":"mirror","urls":["http://deb.example.org/debian stable main"]}`)
	s.Create("repos", `{"name":"empty"}`)
	for name, text := range map[string]string{"basic.ks": "lang en", "sda.cfg": "# x\nd-i debian-installer/locale string en", "sles.xml": "<?xml version=\"1.0\"?><profile>",
		"ubuntu.yaml": "#cloud-config\nautoinstall:\n", "core.ign": ign} {
		s.file(t, name, text)
	}
	const ks, seed = head + "/boot/v1/kickstart", head + "/boot/v1/autoinstall/"
	for _, tt := range []struct {
		doc  apitest.Map
		want string
	}{
		{apitest.Map{"cmdline": "console=ttyS0  quiet"}, "console=ttyS0  quiet"},
		{apitest.Map{"cmdline": "rack=<a[rack]> url=<root_url()>/x"}, "rack=r7 url=" + head + "/x"},
		{apitest.Map{"kickstart": "basic.ks", "cmdline": "quiet"}, "quiet ip=dhcp inst.ks=" + ks},
		{apitest.Map{"kickstart": "basic.ks", "repo": "http://m.org/9/", "cmdline": "ip=ens3:dhcp"}, "ip=ens3:dhcp inst.ks=" + ks + " inst.repo=http://m.org/9/"},
		{apitest.Map{"kickstart": "basic.ks", "repo": "http://m.org/9/", "cmdline": "inst.repo=cdrom"}, "inst.repo=cdrom ip=dhcp inst.ks=" + ks},
		{apitest.Map{"repo": "http://m.org/9/"}, "inst.repo=http://m.org/9/"},
		{apitest.Map{"kickstart": "sda.cfg"}, "auto=true priority=critical url=" + ks},
		{apitest.Map{"kickstart": "sda.cfg", "repo": "mirror"}, "auto=true priority=critical url=" + ks +
			" mirror/country=manual mirror/protocol=http mirror/http/hostname=deb.example.org mirror/http/directory=/debian mirror/http/proxy="},
		{apitest.Map{"kickstart": "ubuntu.yaml", "repo": "http://m.org/u.iso"}, "ip=dhcp autoinstall ds=nocloud;s=" + seed + " url=http://m.org/u.iso"},
		{apitest.Map{"kickstart": "sles.xml", "repo": "http://m.org/sles"}, "netsetup=dhcp autoyast=" + ks + " install=http://m.org/sles"},
		{apitest.Map{"kickstart": "core.ign"}, "ignition.firstboot ignition.platform.id=metal ignition.config.url=" + ks},
	} {
		bc, n := s.bootconfig(t, tt.doc)
		if got, err := s.p.Cmdline(n, bc); err != nil || got != tt.want {
			t.Errorf("%v: %q, %v\nwant %q", tt.doc, got, err, tt.want)
		}
		if problems := s.p.Problems(bc); problems != nil {
			t.Errorf("%v: %q", tt.doc, problems)
		}
	}
	s.OK("PATCH", "/node/n0/attributes", `{"two":"a init=/bin/sh"}`)
	for _, tt := range []struct {
		doc     apitest.Map
		word    string
		problem bool // of any node
	}{
		{apitest.Map{"cmdline": "x=<a[two]>"}, "cannot stand", false},
		{apitest.Map{"cmdline": "x=<a[gone]>"}, "<a[gone]>", false},
		{apitest.Map{"cmdline": "x=<nonsense()>"}, "nonsense", true},
		{apitest.Map{"kickstart": "gone.ks"}, "gone.ks", true},
		{apitest.Map{"kickstart": "basic.ks", "repo": "nobody"}, "nobody", true},
		{apitest.Map{"kickstart": "basic.ks", "repo": "empty"}, "neither an ISO nor a URL", true},
		{apitest.Map{"kickstart": "basic.ks", "repo": "http://x/ init=/bin/sh"}, "no URL", true},
	} {
		bc, n := s.bootconfig(t, tt.doc)
		if got, err := s.p.Cmdline(n, bc); err == nil || !strings.Contains(err.Error(), tt.word) {
			t.Errorf("%v: %q, %v does not say %q", tt.doc, got, err, tt.word)
		}
		if problems := strings.Join(s.p.Problems(bc), "; "); strings.Contains(problems, tt.word) != tt.problem {
			t.Errorf("%v: problems %q", tt.doc, problems)
		}
	}
	s.file(t, "a.ks", "<include(b.ks)>")
	s.file(t, "b.ks", "<include(gone.ks)> <a[any]>")
	bc, _ := s.bootconfig(t, apitest.Map{"kickstart": "a.ks"})
	if problems := strings.Join(s.p.Problems(bc), "; "); !strings.Contains(problems, "gone.ks") || !strings.Contains(problems, "b.ks, line 1") {
		t.Errorf("an included file that is not there: %q", problems)
	}
}
