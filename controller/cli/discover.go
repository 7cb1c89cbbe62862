package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

func (m *muster) discoverCommand() *cobra.Command {
	var networks []string
	var firstIP string
	var yes bool
	c := &cobra.Command{
		Use: "discover [--net NETWORK]…", Short: "Find BMCs, and set them at the nodes that they belong to", Args: cobra.NoArgs,
		Long: `Find BMCs, and set them at the nodes that they belong to.

BMCs are found by their requests for an address, by Redfish's search on the boot
network, and by IPMI in the networks that are named. Each is matched with a node
by what the node reported of itself (system UUID, serial number), by the node's
` + object.AttrMACs + ` and ` + object.AttrIPs + `, or by the switch port in its ` + object.AttrBMCPort + `. What is proposed is
shown, and set when you agree; what a node has already is left as it is.

Set once who may ask BMCs, for all nodes or in any attribute group:
  muster attrib update DefaultAttribs --attributes ` + object.AttrBMCUser + `=USER --attributes ` + object.AttrBMCPass + `=PASSWORD
They are sent only to addresses in the networks named here, where whoever answers
as a BMC could learn them, and to BMCs that nodes have already.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return m.discover(cmd.Context(), networks, firstIP, yes)
		},
	}
	c.Flags().StringArrayVar(&networks, "net", nil, "ask every address of this network, such as 10.3.0.0/22, and as a user; may be given again")
	c.Flags().StringVar(&firstIP, "first-ip", "", "propose this address plus the node's index for a BMC that has none, which DHCP then gives it")
	c.Flags().BoolVar(&yes, "yes", false, "set what is proposed without asking")
	return c
}

func (m *muster) discover(ctx context.Context, networks []string, firstIP string, yes bool) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	all, err := c.Discover(ctx, networks, firstIP)
	if err != nil {
		return err
	}
	if err := m.value(all, "", func() [][]string { return bmcTable(all) }); err != nil {
		return err
	}
	var names []string
	var sets []*client.BMCChange
	for _, b := range all {
		if b.Node != "" && b.Set != nil {
			names, sets = append(names, b.Node), append(sets, b.Set)
		}
	}
	if len(names) == 0 {
		m.complain("there is nothing to set")
		return nil
	}
	if !yes {
		if !m.canAsk() {
			m.complain(fmt.Sprintf("nothing was set; --yes sets it at %d nodes", len(names)))
			return nil
		}
		fmt.Fprintf(m.Stderr, "Set this at %d nodes? [y/N] ", len(names))
		answer, err := firstLine(m.Stdin)
		if err != nil || !strings.EqualFold(strings.TrimSpace(answer), "y") {
			return errors.New("nothing was set")
		}
	}
	return m.report(ctx, names, each(ctx, atOnce, names, func(i int, name string) error {
		return setBMC(ctx, c, name, *sets[i])
	}))
}

// setBMC sets the addresses first: what is wrong with one is told before
// anything speaks to it.
func setBMC(ctx context.Context, c *client.Client, node string, set client.BMCChange) error {
	if len(set.Attributes) > 0 {
		if err := c.Sub(ctx, "PATCH", object.KindNode, node, "attributes", set.Attributes, nil); err != nil {
			return err
		}
	}
	if set.Attributes = nil; set.PowerURI == "" && set.RedfishURI == "" {
		return nil
	}
	return c.Call(ctx, "PATCH", client.Path(object.KindNode, node), set, nil)
}

// bmcTable has a line for each BMC. What BMCs say was cleaned by the head, and
// is once more when it is printed.
func bmcTable(all []client.FoundBMC) [][]string {
	rows := [][]string{{"ADDRESS", "MAC", "VENDOR", "SERIAL", "NODE", "WHY", "SET"}}
	for _, b := range all {
		var set []string
		if b.Set != nil {
			for _, key := range slices.Sorted(maps.Keys(b.Set.Attributes)) {
				set = append(set, key+" "+b.Set.Attributes[key])
			}
			if b.Set.PowerURI != "" {
				set = append(set, "power_uri "+b.Set.PowerURI)
			}
			if b.Set.RedfishURI != "" {
				set = append(set, "redfish_uri "+b.Set.RedfishURI)
			}
		}
		if b.Note != "" {
			set = append(set, "("+b.Note+")")
		}
		rows = append(rows, []string{b.Address, b.MAC, b.Vendor, b.Serial, b.Node, b.Why, strings.Join(set, "; ")})
	}
	return rows
}
