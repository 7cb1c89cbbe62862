package capture

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"muster/controller/api"
	"muster/images"
	"muster/shared/fault"
	"muster/shared/wire"
)

// request is the body; the query may have the same, and the body goes over it.
type request struct {
	UID         string          `json:"uid"` // any identifier of the node
	Exclude     json.RawMessage `json:"exclude,omitempty"`
	Credentials bool            `json:"credentials,omitempty"`
	Compress    json.RawMessage `json:"compress,omitempty"`
}

// volatile is empty on a machine that is off.
var volatile = [...]string{"proc/*", "sys/*", "dev/*", "run/*", "tmp/*", "var/tmp/*", "mnt/*", "media/*", "lost+found", "swapfile", "swap.img"}

// Bounds on what may be excluded.
const (
	maxExcludes = 1000
	maxPattern  = 4096 // bytes
)

func read(w http.ResponseWriter, r *http.Request) (request, error) {
	req, err := fromQuery(r)
	if err != nil {
		return req, err
	}
	raw, err := api.Body(w, r)
	if err == nil && raw != nil {
		err = api.Strict(raw, &req)
	}
	if err != nil {
		return req, err
	}
	if req.UID == "" {
		return req, fault.Invalidf("uid: needs the node to capture.")
	}
	return req, nil
}

func fromQuery(r *http.Request) (req request, err error) {
	q := r.URL.Query()
	req.UID = q.Get("uid")
	if text := q.Get("exclude"); text != "" {
		if req.Exclude, err = json.Marshal(strings.Split(text, ",")); err != nil {
			return req, err
		}
	}
	if text := q.Get("credentials"); text != "" {
		if req.Credentials, err = strconv.ParseBool(text); err != nil {
			return req, fault.Invalidf("credentials: %q is neither true nor false.", text)
		}
	}
	if text := q.Get("compress"); text != "" {
		req.Compress, err = json.Marshal(text)
	}
	return req, err
}

// command is the tar that the node runs (GNU tar: of others none keeps all
// attributes).
func (req request) command() (wire.Exec, error) {
	argv := []string{"tar", "--create", "--file=-", "--directory=/", "--one-file-system", "--numeric-owner", "--sparse",
		"--xattrs", "--xattrs-include=*", "--acls", "--anchored", "--wildcards"}
	how, err := req.compression()
	if err != nil {
		return wire.Exec{}, err
	}
	if how != "" {
		argv = append(argv, how)
	}
	given, err := excludes(req.Exclude)
	if err != nil {
		return wire.Exec{}, err
	}
	all := append(volatile[:], given...)
	if !req.Credentials {
		all = append(all, images.Identity()...)
	}
	for _, pattern := range all {
		argv = append(argv, "--exclude=./"+pattern)
	}
	return wire.Exec{Argv: append(argv, ".")}, nil
}

// compression is tar's option for what the node sends. Over a fast network
// none is quickest; the image is compressed on the head in any case.
func (req request) compression() (string, error) {
	switch strings.Trim(string(req.Compress), `"`) {
	case "", "null", "false", "none":
		return "", nil
	case "true", "gzip":
		return "--gzip", nil
	case "zstd":
		return "--zstd", nil
	case "xz":
		return "--xz", nil
	}
	return "", fault.Invalidf("compress: %s is none of true, false, gzip, zstd and xz.", req.Compress)
}

// excludes reads one pattern or a list, each relative to the root.
func excludes(raw json.RawMessage) ([]string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var list []string
	var one string
	if json.Unmarshal(raw, &one) == nil {
		list = []string{one}
	} else if json.Unmarshal(raw, &list) != nil {
		return nil, fault.Invalidf("exclude: needs a path or a list of paths.")
	}
	if len(list) > maxExcludes {
		return nil, fault.Invalidf("exclude: %d paths are more than %d.", len(list), maxExcludes)
	}
	for i, p := range list {
		clean := strings.TrimRight(strings.TrimLeft(strings.TrimPrefix(p, "./"), "/"), "/")
		if clean == "" || len(p) > maxPattern || strings.ContainsAny(p, "\x00\n") {
			return nil, fault.Invalidf("exclude: %.100q is no path to leave out.", p)
		}
		list[i] = clean
	}
	return list, nil
}
