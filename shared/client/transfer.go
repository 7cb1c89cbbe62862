package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"muster/shared/fault"
	"net/url"
	"strconv"
)

// Progress is told how many bytes have gone so far, from whatever goroutine
// moves them, one call at a time.
type Progress func(done int64)

// Upload sends size bytes of src as the body of a PUT. The head is asked
// before anything is sent, so that a refusal costs nothing. src is read once,
// and not closed.
func (c *Client) Upload(ctx context.Context, path string, src io.Reader, size int64, progress Progress) error {
	return c.UploadFor(ctx, path, src, size, progress, nil)
}

// UploadFor is Upload, and decodes the answer's data into out unless that is nil.
func (c *Client) UploadFor(ctx context.Context, path string, src io.Reader, size int64, progress Progress, out any) error {
	// A body cannot be sent twice: this renews the token if it has to be.
	if _, err := c.Whoami(ctx); err != nil {
		return err
	}
	body := &counted{r: io.LimitReader(src, size), progress: progress}
	rq := request{method: "PUT", path: path, body: func() io.Reader { return body }, size: size, kind: "application/octet-stream", upload: true}
	resp, err := c.once(ctx, rq, c.Tokens().Access)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return c.decode(resp, out)
}

// Download writes the bytes at path to dst and gives their number. total is -1
// where the head does not say. An error may leave a part written.
func (c *Client) Download(ctx context.Context, path string, dst io.Writer, progress func(done, total int64)) (int64, error) {
	resp, err := c.do(ctx, request{method: "GET", path: path})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	src := &counted{r: resp.Body}
	if progress != nil {
		src.progress = func(done int64) { progress(done, resp.ContentLength) }
	}
	n, err := io.Copy(dst, src)
	if src.err != nil && src.err != io.EOF {
		return n, c.broke(ctx, src.err, n)
	}
	if err != nil {
		return n, fmt.Errorf("what was downloaded cannot be written: %w", err)
	}
	return n, nil
}

func (c *Client) broke(ctx context.Context, err error, n int64) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &fault.Error{Code: fault.Unavailable, Err: err,
		Reason: fmt.Sprintf("The answer of %s broke off after %d bytes: %v.", c.base, n, err)}
}

// counted tells how far a reader is, and keeps its error apart from those of
// the writer that it is copied to.
type counted struct {
	r        io.Reader
	n        int64
	err      error
	progress Progress
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil {
		c.err = err
	}
	if c.progress != nil && n > 0 {
		c.progress(c.n)
	}
	return n, err
}

// Command is what to run on a node.
type Command struct {
	Cmd     any              `json:"cmd"`               // string: for /bin/sh -c; []string: run as it is
	Timeout float64          `json:"timeout,omitempty"` // seconds; 0 for none
	Stdin   func() io.Reader `json:"-"`                 // any bytes, sent as they come; called once per attempt
}

// request puts the command into a JSON body, or into the query where the body
// is its input.
func (cmd Command) request(path string) (request, error) {
	rq := request{method: "PUT", path: path, kind: "application/json"}
	if cmd.Stdin == nil {
		in, err := encode(cmd)
		rq.body, rq.size = rewindable(in), int64(len(in))
		return rq, err
	}
	q := url.Values{}
	switch c := cmd.Cmd.(type) {
	case string:
		q.Set("cmd", c)
	case []string:
		q["arg"] = c
	}
	if cmd.Timeout > 0 {
		q.Set("timeout", strconv.FormatFloat(cmd.Timeout, 'g', -1, 64))
	}
	rq.path += "?" + q.Encode()
	rq.body, rq.size, rq.kind = cmd.Stdin, -1, "application/octet-stream"
	return rq, nil
}

// The trailers of an exec's answer.
const (
	trailerStatus = "X-Exit-Status"
	trailerError  = "X-Exit-Error"
)

// ErrNoStatus says that the head's answer ended without the command's exit
// status, so the command may or may not have run to its end.
var ErrNoStatus = errors.New("the head's answer broke off before the command's exit status")

// Exec runs a command on a node and writes its output, both streams in one, as
// it comes. The command's own failure is no error but its status, with a word
// on why it could not be run. Ending ctx kills the command.
func (c *Client) Exec(ctx context.Context, node string, cmd Command, out io.Writer) (status int, why string, err error) {
	rq, err := cmd.request(Path("node", node, "exec"))
	if err != nil {
		return 0, "", err
	}
	resp, err := c.do(ctx, rq)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	src := &counted{r: resp.Body}
	_, err = io.Copy(out, src)
	if src.err != nil && src.err != io.EOF {
		return 0, "", c.broke(ctx, src.err, src.n)
	}
	if err != nil {
		return 0, "", fmt.Errorf("the command's output cannot be written: %w", err)
	}
	return exitStatus(resp.Trailer)
}

func exitStatus(trailer http.Header) (status int, why string, err error) {
	text := trailer.Get(trailerStatus)
	if _, err := fmt.Sscanf(text, "%d", &status); err != nil {
		return 0, "", ErrNoStatus
	}
	if q := trailer.Get(trailerError); q != "" {
		why = unquote(q)
	}
	return status, why, nil
}
