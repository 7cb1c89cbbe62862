package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

// bmcCommands are what BMCs can do beside switching their machines.
func (m *muster) bmcCommands() []*cobra.Command {
	return []*cobra.Command{
		m.bmcShow("sensors", "Show the readings of a node's BMC", sensorTable),
		m.bmcShow("inventory", "Show what a node's BMC knows of its parts and firmware; it goes into the node's hardware as bmc_…", inventoryTable),
		m.bmcSEL(), m.bmcIdentify(), m.bmcReset(),
	}
}

// bmcShow asks one BMC for something, of which table makes rows.
func (m *muster) bmcShow(what, short string, table func(raw json.RawMessage) ([][]string, error)) *cobra.Command {
	return &cobra.Command{
		Use: what + " NODE", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: m.completeNames(m.spec(object.KindNode)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.askBMC(cmd.Context(), args[0], what, table)
		},
	}
}

func (m *muster) askBMC(ctx context.Context, node, what string, table func(raw json.RawMessage) ([][]string, error)) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := c.Call(ctx, "GET", client.Path(object.KindNode, node, what), nil, &raw); err != nil {
		return err
	}
	rows, err := table(raw)
	if err != nil {
		return fmt.Errorf("the head's answer has another form than this program knows: %w", err)
	}
	return m.value(raw, node, func() [][]string { return rows })
}

func sensorTable(raw json.RawMessage) ([][]string, error) {
	var all []struct {
		Name, Type, Unit, Status string
		Value                    *float64
	}
	err := json.Unmarshal(raw, &all)
	rows := [][]string{{"NAME", "TYPE", "VALUE", "UNIT", "STATUS"}}
	for _, s := range all {
		value := ""
		if s.Value != nil {
			value = strconv.FormatFloat(*s.Value, 'g', 6, 64)
		}
		rows = append(rows, []string{s.Name, s.Type, value, s.Unit, s.Status})
	}
	return rows, err
}

func inventoryTable(raw json.RawMessage) ([][]string, error) {
	var inv struct {
		Vendor, Model, Serial, UUID, BMC string
		Firmware                         map[string]string
		Components                       []struct{ Kind, Name, Vendor, Model, Serial, Firmware string }
	}
	err := json.Unmarshal(raw, &inv)
	rows := [][]string{{"KIND", "NAME", "VENDOR", "MODEL", "SERIAL", "FIRMWARE"}, {"machine", inv.UUID, inv.Vendor, inv.Model, inv.Serial, ""}}
	for _, name := range slices.Sorted(maps.Keys(inv.Firmware)) {
		model := ""
		if name == "bmc" {
			model = inv.BMC
		}
		rows = append(rows, []string{"firmware", name, "", model, "", inv.Firmware[name]})
	}
	for _, c := range inv.Components {
		rows = append(rows, []string{c.Kind, c.Name, c.Vendor, c.Model, c.Serial, c.Firmware})
	}
	return rows, err
}

func eventTable(raw json.RawMessage) ([][]string, error) {
	var all []struct{ ID, Time, Severity, Source, Text string }
	err := json.Unmarshal(raw, &all)
	rows := [][]string{{"ID", "TIME", "SEVERITY", "SOURCE", "TEXT"}}
	for _, e := range all {
		rows = append(rows, []string{e.ID, e.Time, e.Severity, e.Source, e.Text})
	}
	return rows, err
}

func (m *muster) bmcSEL() *cobra.Command {
	var empty bool
	c := &cobra.Command{
		Use: "sel NODE", Short: "Show a BMC's system event log, oldest record first, or clear it", Args: cobra.ExactArgs(1), ValidArgsFunction: m.completeNames(m.spec(object.KindNode)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !empty {
				return m.askBMC(cmd.Context(), args[0], "sel", eventTable)
			}
			c, err := m.connect()
			if err != nil {
				return err
			}
			return c.Call(cmd.Context(), "DELETE", client.Path(object.KindNode, args[0], "sel"), nil, nil)
		},
	}
	c.Flags().BoolVar(&empty, "clear", false, "clear it")
	return c
}

func (m *muster) bmcIdentify() *cobra.Command {
	var s selection
	var off bool
	var seconds int
	c := &cobra.Command{
		Use: "identify {-n SET | -a | SET}", Short: "Switch the identify lights of nodes on, or off", ValidArgsFunction: m.completeNames(m.spec(object.KindNode)),
		RunE: func(cmd *cobra.Command, words []string) error {
			if off && seconds > 0 {
				return errors.New("--off and --seconds do not go together")
			}
			in := map[string]any{"on": !off}
			if seconds > 0 {
				in["seconds"] = seconds
			}
			return m.tellBMCs(cmd.Context(), &s, words, "PUT", in, "identify")
		},
	}
	s.flags(c, m)
	c.Flags().BoolVar(&off, "off", false, "switch them off")
	c.Flags().IntVar(&seconds, "seconds", 0, "for how long, 1 to 255; until they are switched off when not given")
	return c
}

func (m *muster) bmcReset() *cobra.Command {
	var s selection
	var warm bool
	c := &cobra.Command{
		Use: "bmc-reset {-n SET | -a | SET}", Short: "Restart BMCs themselves; their nodes run on", ValidArgsFunction: m.completeNames(m.spec(object.KindNode)),
		RunE: func(cmd *cobra.Command, words []string) error {
			kind := map[bool]string{true: "warm", false: "cold"}[warm]
			return m.tellBMCs(cmd.Context(), &s, words, "POST", map[string]any{"type": kind}, "bmc", "reset")
		},
	}
	s.flags(c, m)
	c.Flags().BoolVar(&warm, "warm", false, "without its hardware")
	return c
}

// tellBMCs tells the BMCs of a set of nodes something.
func (m *muster) tellBMCs(ctx context.Context, s *selection, words []string, method string, in any, path ...string) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	names, err := m.nodes(ctx, s, words)
	if err != nil {
		return err
	}
	return m.report(ctx, names, each(ctx, atOnce, names, func(_ int, name string) error {
		return c.Call(ctx, method, client.Path(append([]string{object.KindNode, name}, path...)...), in, nil)
	}))
}
