package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
)

func (m *muster) simulateCommand() *cobra.Command {
	var first, root string
	var count int
	c := &cobra.Command{
		Use: "simulate --first-ip IP --count N", Short: "Run simulated nodes on this machine, for tests and sizing", Args: cobra.NoArgs,
		Long: `Run many light agents in one process until interrupted. Each connects from its
own address, which must be that of a node of the head; those of 127.0.0.0/8 need
no setting up. They report, and run commands on this machine. With --root each
has a directory there, named by its address, to which images can be applied:
the first time with --force, which fills it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			program, err := agentProgram()
			if err != nil {
				return err
			}
			head, err := m.headURL()
			if err != nil {
				return err
			}
			run := exec.CommandContext(cmd.Context(), program, "simulate", "--head", head, "--first-ip", first, "--count", strconv.Itoa(count), "--root", root)
			run.Cancel = func() error { return run.Process.Signal(os.Interrupt) }
			run.Stdout, run.Stderr = m.Stdout, m.Stderr
			if err := run.Run(); err != nil && cmd.Context().Err() == nil {
				return fmt.Errorf("the simulated nodes ended: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&first, "first-ip", "", "address of the first node")
	c.Flags().StringVar(&root, "root", "", "`directory` for a root of each node")
	c.Flags().IntVar(&count, "count", 1, "number of nodes")
	must(c.MarkFlagRequired("first-ip"))
	return c
}

// agentProgram is muster-agent beside this program, or else in the path.
func agentProgram() (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), "muster-agent")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("muster-agent")
	if err != nil {
		return "", fmt.Errorf("muster-agent is neither beside this program nor in the path: %w", err)
	}
	return path, nil
}
