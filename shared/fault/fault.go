// Package fault is the one error type that crosses muster's boundaries, and
// the table that turns it into an HTTP status and back.
//
// An error becomes a fault once, where its cause is known (the registry, or a
// feature's edge), and becomes a status once, in controller/api. Packages
// below that line return ordinary errors. The package must not know any kind,
// route or transport.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Code says what sort of mistake an error is; it decides the HTTP status.
type Code string

// The codes, each with the one status it becomes.
const (
	Invalid         Code = "invalid"         // 400: the request cannot be right, whatever the state
	Unauthenticated Code = "unauthenticated" // 401: no token, or one that is expired or forged
	Forbidden       Code = "forbidden"       // 403: known caller, not allowed
	NotFound        Code = "not-found"       // 404
	NotAllowed      Code = "not-allowed"     // 405: the object does not take this method
	Conflict        Code = "conflict"        // 409: right in itself, not with what is stored
	Gone            Code = "gone"            // 410: it was there once; begin anew
	Changed         Code = "changed"         // 412: somebody else changed it since the caller read it
	TooLarge        Code = "too-large"       // 413
	TooMany         Code = "too-many"        // 429: slow down
	Internal        Code = "internal"        // 500: our fault; the log has the details
	Upstream        Code = "upstream"        // 502: a node or BMC answered with an error
	Unavailable     Code = "unavailable"     // 503: try again; also "agent not connected" once routed
	Timeout         Code = "timeout"         // 504: a node or BMC did not answer in time
	Full            Code = "full"            // 507: the head has no room to store it
)

var statuses = map[Code]int{
	Invalid:         http.StatusBadRequest,
	Unauthenticated: http.StatusUnauthorized,
	Forbidden:       http.StatusForbidden,
	NotFound:        http.StatusNotFound,
	NotAllowed:      http.StatusMethodNotAllowed,
	Conflict:        http.StatusConflict,
	Gone:            http.StatusGone,
	Changed:         http.StatusPreconditionFailed,
	TooLarge:        http.StatusRequestEntityTooLarge,
	TooMany:         http.StatusTooManyRequests,
	Internal:        http.StatusInternalServerError,
	Upstream:        http.StatusBadGateway,
	Unavailable:     http.StatusServiceUnavailable,
	Timeout:         http.StatusGatewayTimeout,
	Full:            http.StatusInsufficientStorage,
}

// Error is a fault. Reason is written for an administrator: what was wrong,
// with which value, and what to do. Err, when set, is the cause for the log;
// it is never sent to a client.
type Error struct {
	Code   Code
	Reason string
	Err    error
}

// Error gives the reason, which is all that a caller needs to print.
func (e *Error) Error() string { return e.Reason }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes a fault. An error given with %w becomes its cause.
func New(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Reason: err.Error(), Err: errors.Unwrap(err)}
}

// Invalidf is New(Invalid, …), by far the most frequent fault.
func Invalidf(format string, args ...any) *Error { return New(Invalid, format, args...) }

// Of gives err as a fault. Anything that is not one already is Internal and
// its text stays out of the reason: it may hold paths or secrets.
func Of(err error) *Error {
	var f *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f):
		return f
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: Timeout, Reason: "The request took too long and was given up.", Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Unavailable, Reason: "The request was cancelled.", Err: err}
	}
	return &Error{Code: Internal, Reason: "Internal error; the head's log has the details.", Err: err}
}

// Is says whether err is a fault of this code.
func Is(err error, code Code) bool {
	var f *Error
	return errors.As(err, &f) && f.Code == code
}

// Status is the HTTP status of err: 200 for nil.
func Status(err error) int {
	if err == nil {
		return http.StatusOK
	}
	return statuses[Of(err).Code]
}

// FromStatus rebuilds the fault that a head answered with, so that a client
// tells errors apart exactly as the head does.
func FromStatus(status int, reason string) *Error {
	for code, s := range statuses {
		if s == status {
			return &Error{Code: code, Reason: reason}
		}
	}
	if status >= 400 && status < 500 {
		return &Error{Code: Invalid, Reason: reason}
	}
	return &Error{Code: Internal, Reason: reason}
}
