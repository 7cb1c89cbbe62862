package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"muster/shared/fault"
)

// request is one request as it is to be sent, maybe twice.
type request struct {
	method, path string
	body         func() io.Reader // nil for none; called once per attempt
	size         int64            // bytes of the body; -1 when not known
	kind         string           // Content-Type
	upload       bool             // ask before sending the body
	bare         bool             // without a token
	bearer       string           // this token instead of the client's
}

// rewindable gives a body that can be sent again.
func rewindable(b []byte) func() io.Reader {
	if b == nil {
		return nil
	}
	return func() io.Reader { return bytes.NewReader(b) }
}

// do sends a request with the client's token and gives an answer whose status
// says success. A token that the head no longer takes is renewed once.
func (c *Client) do(ctx context.Context, rq request) (*http.Response, error) {
	if rq.bare || rq.bearer != "" {
		return c.once(ctx, rq, rq.bearer)
	}
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := c.once(ctx, rq, token)
	if !fault.Is(err, fault.Unauthenticated) {
		return resp, err
	}
	fresh, renewErr := c.renew(ctx, token)
	if renewErr != nil {
		return nil, renewErr
	}
	if fresh == "" { // nothing to renew with: the head's own words say it best
		return nil, err
	}
	return c.once(ctx, rq, fresh)
}

func (c *Client) once(ctx context.Context, rq request, token string) (*http.Response, error) {
	var body io.Reader
	if rq.body != nil {
		body = rq.body()
	}
	r, err := http.NewRequestWithContext(ctx, rq.method, c.base.String()+rq.path, body)
	if err != nil {
		return nil, fmt.Errorf("the request %s %s cannot be made: %w", rq.method, rq.path, err)
	}
	if body != nil {
		r.ContentLength = rq.size
		if rq.size == 0 {
			r.Body = http.NoBody
		}
		r.Header.Set("Content-Type", rq.kind)
	}
	if rq.upload {
		r.Header.Set("Expect", "100-continue")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, failure(resp)
	}
	return resp, nil
}

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("what is to be sent is no JSON: %w", err)
	}
	return b, nil
}

// unquote undoes the quoting by which a header carries any text.
func unquote(s string) string {
	if t, err := strconv.Unquote(s); err == nil {
		return t
	}
	return s
}
