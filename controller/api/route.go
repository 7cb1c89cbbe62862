// Package api turns HTTP into calls on the registry and on the features, and
// their results and errors into the published envelope.
//
// It holds the router, the generic endpoints that every kind gets from its
// declaration, and the one place where a fault becomes a status. Features
// contribute lists of Route; they import this package, never one another. It
// must not hold rules about any kind: those are declared in shared/object.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strings"

	"muster/shared/kind"
)

// Route is one endpoint. A route without a permission or a doc does not start.
type Route struct {
	Method     string // "GET"; the same handler never guesses
	Path       string // pattern of http.ServeMux, "/api/v1/node/{id}/exec"
	Permission kind.Permission
	Doc        string // one sentence, for the OpenAPI document
	Handler    Handler

	// Query is every parameter that the query may have; others are refused.
	Query []Param

	// What follows is for the OpenAPI document. Body and Answer are values of the
	// Go types that the JSON body and the answer's data have, or a Schema; Answer
	// is Nothing{} where there is no data, and WebSocket{} where there is no
	// answer. Raw is the media type of an answer that comes without the envelope,
	// several with commas between them. Either Answer or Raw must be there.
	Body   any
	Answer any
	Raw    string
	tagged bool // has an ETag, or minds one
	// Deprecated marks a route that will go.
	Deprecated bool

	// Upload marks a route that reads its own body: the limit on JSON bodies
	// does not apply, the handler bounds it itself.
	Upload bool
}

// Nothing is the Answer of a route that answers without data.
type Nothing struct{}

// Maybe is the Answer of a route whose answers have data only sometimes.
type Maybe struct{ Of any }

// WebSocket is the Answer of a route that turns the connection into a
// websocket.
type WebSocket struct{}

// described says whether a client can know from the document what comes back.
func (rt *Route) described() bool {
	return (rt.Answer == nil) != (rt.Raw == "") && !strings.Contains(rt.Raw, "*")
}

// Handler answers a request. An error that it returns becomes the failure
// envelope, unless part of the answer has already been sent.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Caller is who asks. Exactly one of Admin and Node is set for a known caller;
// both are empty on public routes.
type Caller struct {
	Admin string // name
	UID   string // of the admin
	Roles []string
	Node  string // UID of the node that asks, on NodeOnly routes
	Addr  netip.Addr
	can   map[kind.Permission]bool
}

// NewCaller makes a caller with these permissions.
func NewCaller(admin, uid string, roles []string, can map[kind.Permission]bool) *Caller {
	return &Caller{Admin: admin, UID: uid, Roles: roles, can: can}
}

// Can says whether the caller holds the permission.
func (c *Caller) Can(p kind.Permission) bool { return c != nil && c.can[p] }

// WebSocketProtocol is the subprotocol of muster's websockets. A browser, which
// can set no header, offers "muster" and beside it its token in another one.
const WebSocketProtocol = "muster"

// Authenticator finds out who asks, for a route that wants this permission. An
// error is an Unauthenticated or Forbidden fault with the reason; for a Public
// route there is none.
type Authenticator interface {
	Authenticate(r *http.Request, want kind.Permission) (*Caller, error)
}

type callerKey struct{}

// WithCaller gives a context that carries the caller.
func WithCaller(ctx context.Context, c *Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf gives the caller of a request; on public routes one without a name.
func CallerOf(ctx context.Context) *Caller {
	if c, ok := ctx.Value(callerKey{}).(*Caller); ok {
		return c
	}
	return &Caller{}
}

// OK answers with the success envelope without data: {"success": true}.
func OK(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write([]byte(`{"success": true}` + "\n"))
	return err
}

// Data answers with the success envelope around data.
func Data(w http.ResponseWriter, data any) error {
	var body bytes.Buffer
	err := encoder(&body).Encode(struct {
		Success bool `json:"success"`
		Data    any  `json:"data"`
	}{true, data})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(body.Bytes())
	return err
}

// encoder writes < and > as they are: answers are read by people and scripts,
// never put into a page as they come.
func encoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}
