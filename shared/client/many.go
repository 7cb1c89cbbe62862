package client

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Many is a command for a set of nodes. Nodes are names and hostlists.
type Many struct {
	Nodes     []string `json:"nodes"`
	Cmd       any      `json:"cmd"`             // as in Command
	Stdin     []byte   `json:"stdin,omitempty"` // any bytes, at most MaxManyStdin
	Encoding  string   `json:"encoding,omitempty"`
	Timeout   float64  `json:"timeout,omitempty"`    // seconds on each node; 0 for none
	Fanout    int      `json:"fanout,omitempty"`     // nodes at once; 0 for all
	MaxOutput int64    `json:"max_output,omitempty"` // bytes of one node; 0 for the head's bound
}

// MaxManyStdin bounds the input of a command for many nodes, in bytes: it has
// to fit into a body of the API.
const MaxManyStdin = 4 << 20

// maxLine bounds a line of the answer, in bytes.
const maxLine = 1 << 20

// Line is a part of what a node answered: output, or how the command ended
// there, of which it is the last. Without Status it did not end by itself.
type Line struct {
	Node   string
	Stdout []byte
	Stderr []byte
	Status *int
	Error  string
}

// Last says whether no other line of the node follows.
func (l *Line) Last() bool { return l.Status != nil || l.Error != "" }

// UnmarshalJSON reads a line as the head writes it.
func (l *Line) UnmarshalJSON(raw []byte) error {
	var in struct {
		Node, Encoding, Error string
		Stdout, Stderr        string
		Status                *int
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	*l = Line{Node: in.Node, Stdout: []byte(in.Stdout), Stderr: []byte(in.Stderr), Status: in.Status, Error: in.Error}
	if in.Encoding != "base64" {
		return nil
	}
	for _, text := range []*[]byte{&l.Stdout, &l.Stderr} {
		out, err := base64.StdEncoding.DecodeString(string(*text))
		if err != nil {
			return err
		}
		*text = out
	}
	return nil
}

// ExecMany runs a command on nodes and gives each line of the answer to fn as
// it comes, one at a time. A node where it fails is no error. Ending ctx kills
// the command everywhere.
func (c *Client) ExecMany(ctx context.Context, cmd Many, fn func(Line) error) error {
	if cmd.Encoding = ""; len(cmd.Stdin) > 0 {
		cmd.Encoding = "base64" // as JSON has bytes
	}
	return c.lines(ctx, Path("exec"), cmd, func(raw []byte) error {
		var l Line
		if err := json.Unmarshal(raw, &l); err != nil {
			return fmt.Errorf("the head's answer cannot be read: %w", err)
		}
		return fn(l)
	})
}

// lines posts a body and gives each line of the answer to fn as it comes.
func (c *Client) lines(ctx context.Context, path string, body any, fn func([]byte) error) error {
	in, err := encode(body)
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, request{method: "POST", path: path, kind: "application/json", body: rewindable(in), size: int64(len(in))})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	src := &counted{r: resp.Body}
	lines := bufio.NewReaderSize(src, maxLine)
	for {
		raw, err := lines.ReadSlice('\n')
		switch {
		case err == io.EOF && len(raw) == 0:
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("the head's answer has a line of more than %d bytes", maxLine)
		case err != nil:
			return c.broke(ctx, err, src.n)
		}
		if err := fn(raw); err != nil {
			return err
		}
	}
}
