package conformance

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// agent runs the real agent as a service of the node at addr, until the test
// ends, and returns when the head calls the node up.
func (c *check) agent(node, addr string, args ...string) {
	state, err := os.MkdirTemp("", "muster-agent")
	c.must(err == nil, "%v", err)
	var log bytes.Buffer
	cmd := exec.Command(c.programs.agent, append([]string{"run", "--head", c.HTTP, "--bind", addr, "--state", state}, args...)...)
	cmd.Stdout, cmd.Stderr = &log, &log
	c.must(cmd.Start() == nil, "%s does not start", c.programs.agent)
	c.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait() // how it ends is agent/app's test
		os.RemoveAll(state)
	})
	c.waitState(node, "up")
}

// waitState returns when the head says that the node has the state.
func (c *check) waitState(node, state string) {
	seq, end := "", time.Now().Add(time.Minute)
	for time.Now().Before(end) {
		o := c.GET("/nodes/states" + seq).object()
		states, _ := o["states"].(map[string]any)
		if states[node] == state {
			return
		}
		seq = fmt.Sprintf("?after=%.0f", o["seq"])
	}
	c.must(false, "%s did not become %s", node, state)
}
