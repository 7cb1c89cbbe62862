package conformance

// class is a kind of objects, with what its generic rows are called with. In a
// body # stands for a number that makes the object another one.
type class struct {
	plural, single string
	needs          []call // made first, what the bodies refer to
	min            string // body with no more than must be
	full           string // body with every writable field
	change         string // PATCH of a single field
	names          []string
	shown          string            // fields that only the head sets, with spaces
	refs           map[string]string // fields that refer to objects: their singular path word
	nameless       bool
	title          string // in the reason for a duplicate
	noPut          bool
	noUIDOfItsOwn  bool // the caller gives it
}

// call is a request that prepares something.
type call struct{ method, path, body string }

func classes() map[string]class {
	all := []class{
		{
			plural: "nodes", single: "node", title: "Node",
			needs: []call{
				{"POST", "/nets", `{"first_ip":"10.20.0.10","ip_count":200,"mask_bits":24}`},
				{"POST", "/attribs", `{"name":"gpus","attributes":{"cards":4}}`},
				{"POST", "/namingpools", `{"name":"racks","pattern":"r{}"}`},
			},
			min:    `{"mac":"52:54:00:00:20:#x"}`,
			full:   `{"mac":"52:54:00:00:21:#x","type":"simulated","description":"one","attributes":{"a":"b"},"groups":["gpus"],"naming_pool":"racks","power_uri":"ipmi://10.1.1.1/x","redfish_uri":"https://10.1.1.1/redfish/v1"}`,
			change: `{"description":"changed"}`, names: []string{"name", "mac", "ip"},
			shown: "name ip hostname domain hardware", refs: map[string]string{"groups": "attrib", "naming_pool": "namingpool"},
		},
		{
			plural: "attribs", single: "attrib", title: "Attrib",
			min: `{"name":"attrib#"}`, full: `{"name":"full#","description":"one","attributes":{"a":"b","n":1,"t":true}}`,
			change: `{"description":"changed"}`, names: []string{"name"},
		},
		{
			plural: "admins", single: "admin", title: "Admin",
			min:    `{"name":"admin#"}`,
			full:   `{"name":"full#","description":"one","roles":["role.authuser"],"keys":["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHDGa51ZBbZi97zfZLMXUuSdLFBqxiAnsKZYHDTCKIPo jo@desk"],"gui_settings":{"theme":"dark"}}`,
			change: `{"description":"changed"}`, names: []string{"name"},
		},
		{
			plural: "bootconfigs", single: "bootconfig", title: "Bootconfig",
			needs:  []call{{"POST", "/images", `{"name":"some image"}`}},
			min:    `{"name":"boot#"}`,
			full:   `{"name":"full#","description":"one","frozen":false,"cmdline":"quiet selinux=0","image":"some image","boot_style":"roram","repo":"http://10.1.1.1/repo","kickstart":"ks.cfg"}`,
			change: `{"cmdline":"changed"}`, names: []string{"name"}, shown: "kernel initramfs", refs: map[string]string{"image": "image"},
		},
		{
			plural: "images", single: "image", title: "Image",
			needs: []call{{"POST", "/images", `{"name":"parent image"}`}, {"POST", "/distros", `{"name":"Debian"}`}},
			min:   `{"name":"image#"}`, full: `{"name":"full#","description":"one","frozen":false,"parent":"parent image","distro":"Debian"}`,
			change: `{"description":"changed"}`, names: []string{"name"}, shown: "content", refs: map[string]string{"parent": "image", "distro": "distro"},
		},
		{
			plural: "nets", single: "net", title: "Net",
			min:    `{"first_ip":"10.#.0.10","ip_count":10,"mask_bits":24}`,
			full:   `{"name":"full#","description":"one","first_ip":"10.#.1.10","ip_count":10,"mask_bits":24,"first_index":5,"router_ip":"10.#.1.1","gateway_ip":"10.#.1.2","domain":"example.org","node_iface":"eno1"}`,
			change: `{"description":"changed"}`, names: []string{"name"}, nameless: true,
		},
		hostnames("hostname"), hostnames("host"),
		{
			plural: "dyngroups", single: "dyngroup", title: "Dyngroup",
			min: `{"name":"dyn#","selector":"up"}`, full: `{"name":"full#","description":"one","selector":"h[ram_total] > 100GB"}`,
			change: `{"selector":"down"}`, names: []string{"name"}, shown: "parsed",
		},
		{
			plural: "namingpools", single: "namingpool", title: "Namingpool",
			needs: []call{
				{"POST", "/nets", `{"name":"segment","first_ip":"10.30.0.10","ip_count":100,"mask_bits":24}`},
				{"POST", "/attribs", `{"name":"gpus"}`},
				{"POST", "/namingpools", `{"name":"parent","pattern":"parent{}"}`},
			},
			min:    `{"name":"pool#","pattern":"pool#-{}"}`,
			full:   `{"name":"full#","pattern":"full#-{:03d}","description":"one","first_index":1,"ip_offset":20,"network":"segment","group":"gpus","parent":"parent"}`,
			change: `{"ip_base":"10.30.0.40"}`, names: []string{"name"}, refs: map[string]string{"network": "net", "group": "attrib", "parent": "namingpool"},
		},
		{
			plural: "heads", single: "head", title: "Head", noPut: true, noUIDOfItsOwn: true, nameless: true,
			min:    `{"uid":"head#","ssh_public":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHDGa51ZBbZi97zfZLMXUuSdLFBqxiAnsKZYHDTCKIPo root@other"}`,
			full:   `{"uid":"head#","ssh_public":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHDGa51ZBbZi97zfZLMXUuSdLFBqxiAnsKZYHDTCKIPo root@other","description":"one"}`,
			change: `{"description":"changed"}`,
		},
		{
			plural: "repos", single: "repo", title: "Repo",
			min:    `{"name":"repo#"}`,
			full:   `{"name":"full#","description":"one","full_name":"Full Name","urls":["http://10.1.1.1/a","http://10.1.1.1/b"],"mirrors":["http://10.1.1.2/a"],"disable":[false,true],"keys":["http://10.1.1.1/key","http://10.1.1.1/key2"],"check":true,"rhel_entitlement":"12345"}`,
			change: `{"description":"changed"}`, names: []string{"name"},
		},
		{
			plural: "distros", single: "distro", title: "Distro",
			needs: []call{{"POST", "/repos", `{"name":"base"}`}, {"POST", "/repos", `{"name":"updates"}`}},
			min:   `{"name":"distro#"}`, full: `{"name":"full#","description":"one","repos":["base","updates"],"packaging":"deb","release":"12"}`,
			change: `{"release":"13"}`, names: []string{"name"}, refs: map[string]string{"repos": "repo"},
		},
		{
			plural: "gitrepos", single: "gitrepo", title: "Gitrepo",
			min:    `{"name":"git#"}`,
			full:   `{"name":"full#","description":"one","public":false,"upstream":"http://127.0.0.1:1/none.git","branch_map":["main:main"],"sync_period":"2h"}`,
			change: `{"description":"changed"}`, names: []string{"name"},
		},
	}
	out := map[string]class{}
	for _, k := range all {
		out[k.plural] = k
	}
	return out
}

// hostnames are the same objects under two words.
func hostnames(single string) class {
	return class{
		plural: single + "s", single: single, title: "Hostname",
		min:    `{"name":"` + single + `#","ip":"10.40.0.#"}`,
		full:   `{"name":"full-` + single + `#","type":"arec","description":"one","ip":"10.40.1.#","mac":"52:54:00:00:40:#x","domain":"example.org"}`,
		change: `{"description":"changed"}`, names: []string{"name"}, shown: "",
	}
}
