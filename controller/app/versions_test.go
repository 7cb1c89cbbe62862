package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"muster/controller/app/apptest"
	"muster/shared/wire"
)

func TestBootedVersionStays(t *testing.T) {
	h := apptest.Start(t, nil)
	h.OK("POST", "/nets", `{"first_ip":"`+nodeAddr+`","ip_count":1,"mask_bits":8}`)
	h.OK("POST", "/nodes", `{"mac":"52:54:00:00:00:77"}`)
	h.OK("POST", "/images", `{"name":"i"}`)
	for _, content := range []string{"first", "second", "third"} {
		h.OK("PUT", "/image/i/content", content)
	}
	var versions []struct {
		Digest string
		Booted bool
	}
	h.Into(&versions, "GET", "/image/i/versions", nil)
	body := fmt.Sprintf(`{"step":%q,"image":%q}`, wire.StepImage, versions[0].Digest)
	req, err := http.NewRequest("POST", h.HTTP+wire.PathStep, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	client := from(nodeAddr)
	defer client.CloseIdleConnections()
	if a := h.Send(client, req); a.Status != http.StatusOK {
		t.Fatal(a.Reason)
	}
	h.Into(&versions, "GET", "/image/i/versions", nil)
	if !versions[0].Booted || versions[1].Booted {
		t.Errorf("versions are %+v", versions)
	}
	if a := h.As(h.Token(), "DELETE", "/image/i/version/1", nil); a.Status != http.StatusConflict || !strings.Contains(a.Reason, "nodes run it") {
		t.Errorf("%d %s", a.Status, a.Reason)
	}
	h.OK("DELETE", "/image/i/version/2", nil)
}
