package conformance

// groups is the table of all endpoints.
func groups() []group {
	k, git := classes(), &upstream{}
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
		{"login", true, nil, join(loginRows(), whoRows())},
		of("nodes", nil),
		{"node", true, nodesSetup, join(nodeGroupRows(), nodeAttributeRows(), nodePowerRows(), nodeReportRows())},
		of("attribs", attribSetup, attribRows()),
		of("admins", adminSetup, adminRows()),
		of("bootconfigs", nil),
		{"bootconfig", true, bootSetup, bootconfigRows()},
		of("images", nil),
		{"image", true, imageSetup, imageRows()},
		of("nets", netSetup, netRows()),
		of("hostnames", nil, hostnameRows("hostname")),
		of("hosts", nil, hostnameRows("host")),
		of("dyngroups", nil, dyngroupRows()),
		of("namingpools", nil, namingpoolRows()),
		{"heads", false, nil, join(k["heads"].generic("PUT"), headRows())},
		of("repos", repoSetup, repoRows()),
		of("distros", nil),
		of("gitrepos", nil),
		{"gitrepo", false, git.setup, git.rows()},
		{"cluster", false, clusterSetup, clusterRows()},
		{"database", false, nil, databaseRows()},
		{"provision", false, provisionSetup, provisionRows()},
		{"install", true, nil, installRows()},
	}
}

func join(parts ...[]row) (all []row) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}
