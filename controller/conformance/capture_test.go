package conformance

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// captureOf asks for an image of a node that runs on this machine, of which
// only one directory is to be taken.
func captureOf(node, only string) string {
	var exclude []string
	entries, _ := os.ReadDir("/")
	for _, e := range entries {
		if path := "/" + e.Name(); path != only {
			exclude = append(exclude, path+"/*")
		}
	}
	body, _ := json.Marshal(map[string]any{"uid": node, "exclude": exclude, "compress": true})
	return string(body)
}

// filesIn lists what the squashfs at path holds.
func (c *check) filesIn(path string) map[string]bool {
	dir, err := os.MkdirTemp("", "muster-captured")
	c.must(err == nil, "%v", err)
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "image")
	c.must(os.WriteFile(file, c.GET(path).bytes(), 0o600) == nil, "the image cannot be kept")
	out, err := exec.Command("unsquashfs", "-l", "-d", "", file).Output()
	c.must(err == nil, "unsquashfs: %v", err)
	names := map[string]bool{}
	for line := range bytes.Lines(out) {
		names[strings.TrimPrefix(strings.TrimSpace(string(line)), "/")] = true
	}
	return names
}
