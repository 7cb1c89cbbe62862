package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"

	"muster/shared/fault"
)

// handler serves routes. It is the one place where a caller is checked against
// a route's permission and where an error becomes an answer.
type handler struct {
	mux  *http.ServeMux
	auth Authenticator
	log  *slog.Logger
}

// New makes the HTTP handler of all routes, and of those that describe them. A
// route that lacks something is an error, so that none can be served by
// accident.
func New(auth Authenticator, log *slog.Logger, routes ...[]Route) (http.Handler, error) {
	h := &handler{mux: http.NewServeMux(), auth: auth, log: log}
	all := slices.Concat(routes...)
	for _, rt := range append(all, documentation(all)...) {
		if rt.Method == "" || rt.Path == "" || rt.Permission == "" || rt.Doc == "" || rt.Handler == nil {
			return nil, fmt.Errorf("route %s %s needs a method, a path, a permission, a doc and a handler", rt.Method, rt.Path)
		}
		if !rt.described() {
			return nil, fmt.Errorf("route %s %s says not what it answers: give it either an Answer or the media types in Raw", rt.Method, rt.Path)
		}
		h.mux.Handle(rt.Method+" "+rt.Path, h.endpoint(rt))
	}
	h.mux.HandleFunc(nowhere, h.missing)
	return h, nil
}

// nowhere is the pattern of what no route has.
const nowhere = "/"

// ServeHTTP serves the routes. A path with . or .. or an empty part in it names
// nothing; the mux would answer it with a redirect and a page, to where a
// script whose variable is empty did not want to go. Only package managers, who
// put slash to slash in trees of files, are sent on.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if path := r.URL.EscapedPath(); strings.Contains(path, "//") && strings.HasPrefix(strings.TrimLeft(path, "/"), Root[1:]) {
		h.fail(w, r, fault.New(fault.NotFound, "There is nothing at %.200s, which has // in it: a name is missing, or a slash too many.", r.URL.Path))
		return
	}
	for part := range strings.SplitSeq(r.URL.EscapedPath(), "/") {
		if part == "." || part == ".." {
			h.fail(w, r, fault.New(fault.NotFound, "There is nothing at %.200s, which has %s in it.", r.URL.Path, part))
			return
		}
	}
	h.mux.ServeHTTP(w, r)
}

// missing answers paths and methods that do not exist in the envelope too.
func (h *handler) missing(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, m := range []string{"GET", "POST", "PATCH", "PUT", "DELETE"} {
		probe := r.Clone(r.Context())
		probe.Method = m
		if _, pattern := h.mux.Handler(probe); pattern != "" && pattern != nowhere {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) == 0 {
		h.fail(w, r, fault.New(fault.NotFound, "There is nothing at %s.", r.URL.Path))
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	h.fail(w, r, fault.New(fault.NotAllowed, "%s does not take %s, only %s.", r.URL.Path, r.Method, strings.Join(allowed, ", ")))
}

func (h *handler) endpoint(rt Route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &sentWriter{ResponseWriter: w}
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				h.log.Error("handler panicked", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				h.answer(sw, r, fault.New(fault.Internal, "Internal error; the head's log has the details."))
			}
		}()
		caller, err := h.auth.Authenticate(r, rt.Permission)
		if err == nil {
			err = rt.checkQuery(r.URL)
		}
		if err == nil {
			err = rt.Handler(sw, r.WithContext(WithCaller(r.Context(), caller)))
		}
		if err != nil {
			h.answer(sw, r, err)
		}
	})
}

// answer sends an error, unless an answer has begun: then the connection is
// cut, which is the only way left to say that it is not complete.
func (h *handler) answer(w *sentWriter, r *http.Request, err error) {
	if w.hijacked {
		return
	}
	if w.sent {
		if !errors.Is(err, context.Canceled) {
			h.log.Warn("answer broke off", "path", r.URL.Path, "error", err)
		}
		panic(http.ErrAbortHandler)
	}
	h.fail(w, r, err)
}

func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.Of(err)
	if f.Code == fault.Internal {
		h.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	for _, name := range []string{"Content-Length", "Content-Disposition", "ETag", "Cache-Control", "Last-Modified"} {
		w.Header().Del(name)
	}
	w.Header().Set("Content-Type", "application/json")
	if f.Code == fault.Unauthenticated && w.Header().Get("WWW-Authenticate") == "" {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(fault.Status(f))
	encoder(w).Encode(struct {
		Success bool   `json:"success"`
		Reason  string `json:"reason"`
	}{false, f.Reason})
}

// RemoteAddr is the address of the connection's other end, IPv4 as such.
func RemoteAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// sentWriter knows whether anything has been sent. Unwrap lets
// http.ResponseController reach flushing, deadlines and hijacking.
type sentWriter struct {
	http.ResponseWriter
	sent, hijacked bool
}

func (w *sentWriter) WriteHeader(status int) {
	w.sent = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *sentWriter) Write(p []byte) (int, error) {
	w.sent = true
	return w.ResponseWriter.Write(p)
}

func (w *sentWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
