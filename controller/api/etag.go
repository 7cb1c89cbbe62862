package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"

	"muster/controller/registry"
)

// contentTag makes an entity tag of a representation's bytes (RFC 9110 §8.8.3).
func contentTag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
}

// matches says whether a condition's header names a tag. The comparison is the
// weak one: a proxy that compressed the answer may have marked its tag so.
func matches(header []string, tag string) bool {
	for _, t := range tagList(header) {
		if t == "*" || t == tag {
			return true
		}
	}
	return false
}

// tagList gives the tags of If-Match or If-None-Match.
func tagList(header []string) []string {
	var out []string
	for _, line := range header {
		for _, t := range strings.Split(line, ",") {
			if t = strings.TrimPrefix(strings.TrimSpace(t), "W/"); t != "" {
				out = append(out, t)
			}
		}
	}
	return out
}

// conditional gives the context of a change that minds If-Match: the part of a
// tag before its point is the version that the object is stored in. What is
// only shown with it, such as a node's state, may have changed.
func conditional(r *http.Request) context.Context {
	tags := tagList(r.Header.Values("If-Match"))
	if len(tags) == 0 || slices.Contains(tags, "*") {
		return r.Context()
	}
	for i, t := range tags {
		tags[i], _, _ = strings.Cut(strings.Trim(t, `"`), ".")
	}
	return registry.IfVersion(r.Context(), tags)
}

// same answers that the client has this state already, if it has.
func same(w http.ResponseWriter, r *http.Request, tag string) bool {
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "private, no-cache") // ask each time whether it is still so
	if !matches(r.Header.Values("If-None-Match"), tag) {
		return false
	}
	w.WriteHeader(http.StatusNotModified)
	return true
}

// serveTagged answers with bytes that seldom change, or that they are still
// what the client has.
func serveTagged(w http.ResponseWriter, r *http.Request, media string, body []byte) error {
	if same(w, r, contentTag(body)) {
		return nil
	}
	w.Header().Set("Content-Type", media)
	_, err := w.Write(body)
	return err
}
