// Package conformance holds a complete head to the published API: every
// endpoint and every worked example, asked over HTTP as a client would, and
// counted. It has only tests, and they must not know how the head is made:
// what a table says can be asked of any head.
//
// A row is one endpoint: how it is called, who may call it, and what must hold.
// That strangers, forged tokens and admins without a role are turned away
// follows from the row; the rest is its check. `go test -v ./controller/conformance`
// prints the tables.
package conformance
