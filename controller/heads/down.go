package heads

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/object"
)

// Bounds on asking other heads whether they are there.
const (
	probeTime = 3 * time.Second
	probes    = 16       // at once
	maxAnswer = 64 << 10 // bytes
)

// downHead is a head that does not answer, as users see it.
type downHead struct {
	*object.Head
	Reason string `json:"reason"`
}

// down asks all other heads and gives those that are not there.
func (h *Heads) down(ctx context.Context) ([]downHead, error) {
	var others []*object.Head
	for _, o := range h.opt.Objects.All(object.KindHead) {
		if o.Base().UID != h.opt.Self.UID {
			others = append(others, o.(*object.Head))
		}
	}
	reasons := make([]string, len(others))
	var group errgroup.Group
	group.SetLimit(probes)
	for i, o := range others {
		group.Go(func() error {
			reasons[i] = h.absence(ctx, o)
			return nil
		})
	}
	group.Wait()
	out := []downHead{}
	for i, o := range others {
		if reasons[i] != "" {
			out = append(out, downHead{o, reasons[i]})
		}
	}
	return out, ctx.Err() // a client that went away proves nothing
}

// absence says why a head is down, "" when it is not. Down is one that has no
// address to answer at, that does not answer there, or whose place another
// head has. One that answers but cannot be made sure of is not: what is called
// down may be deleted.
func (h *Heads) absence(ctx context.Context, o *object.Head) string {
	if o.PeerURL == "" {
		return "it has no peer_url, where it could be asked"
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	got, err := h.ask(ctx, o)
	var badCert *tls.CertificateVerificationError
	var badRecord tls.RecordHeaderError
	switch {
	case errors.As(err, &badCert), errors.As(err, &badRecord), errors.Is(err, errUnclear):
		h.opt.Log.Warn("a head answers, but not as it should", "head", o.UID, "url", o.PeerURL, "error", err)
		return ""
	case err != nil:
		return reach(err, o.PeerURL)
	case got != "" && got != o.UID:
		return "the head " + got + " answers at " + o.PeerURL
	}
	return ""
}

var errUnclear = errors.New("no answer of a head")

// ask gives the UID of the head that answers at another one's URL.
func (h *Heads) ask(ctx context.Context, o *object.Head) (uid string, err error) {
	req, err := http.NewRequestWithContext(ctx, "GET", o.PeerURL+api.Root+"/cluster/database", nil)
	if err != nil {
		return "", err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(h.opt.Self.CAPEM())
	roots.AppendCertsFromPEM([]byte(o.CAPEM))
	c := http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       (&net.Dialer{Timeout: probeTime}).DialContext,
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		},
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			UID string `json:"uid"`
		} `json:"data"`
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(raw, &answer) != nil {
		return "", fmt.Errorf("%w: %s", errUnclear, resp.Status)
	}
	return answer.Data.UID, nil
}

// reach says in words what kept a head from being reached.
func reach(err error, url string) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("%s did not answer within %v", url, probeTime)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Sprintf("%s cannot be reached: %v", url, err)
}

func (h *Heads) getDown(w http.ResponseWriter, r *http.Request) error {
	down, err := h.down(r.Context())
	if err != nil {
		return err
	}
	return api.Data(w, down)
}

func (h *Heads) deleteDown(w http.ResponseWriter, r *http.Request) error {
	down, err := h.down(r.Context())
	if err != nil {
		return err
	}
	removed := []downHead{}
	for _, o := range down {
		err := h.opt.Objects.Delete(r.Context(), api.By(r), object.KindHead, o.UID)
		if fault.Is(err, fault.NotFound) {
			continue // somebody was quicker
		}
		if err != nil {
			return err
		}
		h.opt.Log.Info("removed a head that is down", "head", o.UID, "reason", o.Reason, "admin", api.By(r).Name)
		removed = append(removed, o)
	}
	return api.Data(w, removed)
}
