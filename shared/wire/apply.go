package wire

import (
	"encoding/json"
	"fmt"
	"io"
)

// StreamApply changes the files of a running root to a version of an image.
// The agent answers the header with Running. The head sends Differing and the
// bytes that it announces, or closes the stream. The agent says Applied once
// when it knows what is to be done, and once more, with Done, when it was. A
// stream that ends before that ends the work, while nothing was changed yet.
// An agent that knows no such streams closes it at once.
const StreamApply = "apply"

// Apply is what is to be done.
type Apply struct {
	Image   Image `json:"image"`
	DryRun  bool  `json:"dry_run,omitempty"`
	Force   bool  `json:"force,omitempty"` // changes made on the node are overwritten
	Restart bool  `json:"restart,omitempty"`
	// Rules say which services are to be restarted, beside those that the root
	// has: lines of a glob and units.
	Rules string `json:"rules,omitempty"`
	By    string `json:"by,omitempty"` // the admin, for the node's log
}

// Running is the version that a root's files are of.
type Running struct {
	Image *Image `json:"image,omitempty"` // nil: nobody noted it
	// Differs are the paths that are known not to be as the version has them.
	Differs []string `json:"differs,omitempty"`
	Problem string   `json:"problem,omitempty"` // why nothing can be changed
}

// Differing announces two trees, as images/tree encodes them: of the version
// that runs and of the wanted one, as far as they differ. With Whole there are
// none, and every file is compared with the wanted version.
type Differing struct {
	Before int64 `json:"before,omitempty"` // bytes
	After  int64 `json:"after,omitempty"`
	Whole  bool  `json:"whole,omitempty"`
}

// Bounds of what is said in an apply stream.
const (
	MaxDiffers   = 5000     // paths in Running
	MaxDiffering = 64 << 20 // bytes of either tree
	MaxListed    = 1000     // paths in each list of Applied
	MaxMessage   = 4 << 20  // bytes
)

// Applied is what an agent found to do, or did.
type Applied struct {
	Done       bool  `json:"done,omitempty"`
	Added      int   `json:"added,omitempty"`
	Changed    int   `json:"changed,omitempty"`
	Attributes int   `json:"attributes,omitempty"` // files of which only owner, mode, time or attributes change
	Removed    int   `json:"removed,omitempty"`
	Fetched    int64 `json:"fetched,omitempty"` // bytes that came from the head
	// Files are those that change; only told in a dry run.
	Files []PathNote `json:"files,omitempty"`
	// Kept are those that stay as they are although the version has them
	// otherwise, Left those that are no part of any version's business.
	Kept []PathNote `json:"kept,omitempty"`
	Left []PathNote `json:"left,omitempty"`
	More bool       `json:"more,omitempty"` // the lists are cut
	// Restart are the services whose files change, Restarted those that were.
	Restart   []string `json:"restart,omitempty"`
	Restarted []string `json:"restarted,omitempty"`
	Error     string   `json:"error,omitempty"`
}

// PathNote is a path and what is to be said of it.
type PathNote struct {
	Path string `json:"path"`
	Note string `json:"note"`
}

// WriteValue writes a value as JSON, with its length before it.
func WriteValue(w io.Writer, v any) error {
	raw, err := appendMessage(nil, v, MaxMessage)
	if err == nil {
		_, err = w.Write(raw)
	}
	return err
}

// ReadValue reads what WriteValue wrote.
func ReadValue(r io.Reader, v any) error {
	raw, err := ReadMessage(r, MaxMessage)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("a message that cannot be read: %w", err)
	}
	return nil
}
