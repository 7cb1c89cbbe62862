package api

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
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

// serveTagged answers with bytes that seldom change, or that they are still
// what the client has.
func serveTagged(w http.ResponseWriter, r *http.Request, media string, body []byte) error {
	tag := contentTag(body)
	w.Header().Set("ETag", tag)
	if matches(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Type", media)
	_, err := w.Write(body)
	return err
}
