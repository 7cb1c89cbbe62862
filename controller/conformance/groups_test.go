package conformance

// groups is the table of all endpoints.
func groups() []group {
	k := classes()
	// generic rows of a class, and those that only it has.
	of := func(plural string, setup func(*check), special ...[]row) group {
		g := group{name: plural, rows: k[plural].generic()}
		g.setup = func(c *check) {
			k[plural].prepare(c)
			if setup != nil {
				setup(c)
			}
		}
		for _, rows := range special {
			g.rows = append(g.rows, rows...)
		}
		return g
	}
	return []group{
		of("nodes", nil),
		{"node", true, nodesSetup, join(nodeGroupRows(), nodeAttributeRows(), nodePowerRows(), nodeReportRows())},
		of("attribs", attribSetup, attribRows()),
		of("admins", adminSetup, adminRows()),
		of("bootconfigs", nil),
		of("images", nil),
		of("nets", netSetup, netRows()),
		of("hostnames", nil, hostnameRows("hostname")),
		of("hosts", nil, hostnameRows("host")),
		of("dyngroups", nil, dyngroupRows()),
		of("namingpools", nil, namingpoolRows()),
		{"heads", false, nil, k["heads"].generic("PUT")},
		of("repos", nil),
		of("distros", nil),
		of("gitrepos", nil),
	}
}

func join(parts ...[]row) (all []row) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func stories() []story { return nil }
