package lab_test

import (
	"strings"
	"testing"
)

// applied: a running node becomes of another version of its image, without a
// boot: what was changed on it stays until it is told otherwise, and the way
// back is the same.
func (b *bench) applied(t *testing.T) {
	node := b.biosNode
	b.muster(t, "image", "edit", "Damaged", "--", "sh", "-c", "echo two > /etc/issue; echo two > /etc/issue.net; echo two > /opt/new; chmod 0640 /opt/new")
	before := b.exec(t, node, "head -n 1 /etc/issue; echo mine > /etc/issue")
	files := func(want string) {
		t.Helper()
		if got := b.exec(t, node, "cat /etc/issue /etc/issue.net /opt/new 2>&1 | grep -cx two; head -n 1 /etc/issue; stat -c %a /opt/new 2>/dev/null || echo none"); got != want {
			t.Errorf("the node has %q, wanted %q", got, want)
		}
	}
	out, err := b.Head.CLI(b.ctx, "image", "apply", "Damaged", "-n", node, "-y")
	if err == nil || !strings.Contains(out+err.Error(), "/etc/issue") {
		t.Errorf("a file that was changed on the node is not told of: %s, %v", out, err)
	}
	files("2\nmine\n640")
	b.muster(t, "image", "apply", "Damaged", "-n", node, "-y", "--force")
	files("3\ntwo\n640")
	b.muster(t, "image", "apply", "Damaged:1", "-n", node, "-y")
	files("0\n" + before + "\nnone")
	b.checkExec(t, node)
}
