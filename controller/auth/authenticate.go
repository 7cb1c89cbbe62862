package auth

import (
	"crypto/x509"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Browsers cannot set headers when they open a websocket, but can offer
// subprotocols: new WebSocket(url, ["muster", "muster.bearer." + token]).
// The server selects api.WebSocketProtocol, never the one with the token, which
// would otherwise come back in the answer.
const (
	bearerProtocol = "muster.bearer."
)

// Authenticate implements api.Authenticator.
func (s *Service) Authenticate(r *http.Request, want kind.Permission) (*api.Caller, error) {
	addr := s.clientAddr(r)
	switch want {
	case "":
		return nil, fault.New(fault.Internal, "This endpoint has no permission, so nobody may use it.")
	case kind.Public, kind.OnlyLocal:
		return &api.Caller{Addr: addr}, nil
	case kind.NodeOnly:
		return s.node(r, addr)
	case kind.HeadOnly:
		if !addr.IsValid() || !s.cfg.Heads.IsHead(addr) {
			return nil, fault.New(fault.Forbidden, "Only heads may do this, and %s is not the address of one.", addr)
		}
		return &api.Caller{Addr: addr}, nil
	}
	return s.byToken(r, addr, want)
}

// byToken finds who holds the request's access token and checks the permission.
func (s *Service) byToken(r *http.Request, addr netip.Addr, want kind.Permission) (*api.Caller, error) {
	token, err := bearer(r)
	if err != nil {
		return nil, err
	}
	c, err := s.tokens.verify(token, accessToken)
	if err != nil {
		return nil, err
	}
	a, err := s.holder(c)
	if err != nil {
		return nil, err
	}
	can := s.grants.of(a.Roles)
	if !can[want] {
		if len(can) == 0 {
			return nil, noRole(a)
		}
		return nil, fault.New(fault.Forbidden, "Admin %s lacks the permission %s (roles: %s).", a.Name, want, strings.Join(a.Roles, ", "))
	}
	caller := api.NewCaller(a.Name, a.UID, a.Roles, can)
	caller.Addr = addr
	return caller, nil
}

// holder is the admin that a token speaks for, as he is now.
func (s *Service) holder(c *claims) (Admin, error) {
	a, ok := s.cfg.Admins.AdminByUID(c.Subject)
	if !ok {
		return Admin{}, fault.New(fault.Unauthenticated, "The token is that of admin %s, who was deleted.", c.Name)
	}
	if a.Name != c.Name { // the name is that of a person
		return Admin{}, fault.New(fault.Unauthenticated, "The token is that of admin %s, who is called %s now: log in again.", c.Name, a.Name)
	}
	if a.Generation != c.Generation {
		return Admin{}, fault.New(fault.Unauthenticated, "The tokens of admin %s were revoked: log in again.", a.Name)
	}
	if s.ended.has(c.login()) {
		return Admin{}, fault.New(fault.Unauthenticated, "The login of admin %s that this token is of was ended by a logout: log in again.", a.Name)
	}
	return a, nil
}

func noRole(a Admin) error {
	if slices.Contains(a.Roles, object.RoleNoAccess) {
		return fault.New(fault.Forbidden, "Admin %s has no access: %s is among the roles, and takes away all that others allow.", a.Name, object.RoleNoAccess)
	}
	return fault.New(fault.Forbidden, "Admin %s has no role that this head knows, so nothing is allowed; a full admin can give one with PATCH /api/v1/admin/%s.", a.Name, a.Name)
}

// bearer takes the token out of the request (RFC 6750 §2.1, or the websocket
// subprotocol).
func bearer(r *http.Request) (string, error) {
	given := r.Header.Values("Authorization")
	if len(given) > 1 {
		return "", fault.New(fault.Unauthenticated, "The request has %d Authorization headers; send one.", len(given))
	}
	if len(given) == 1 {
		scheme, token, _ := strings.Cut(strings.TrimSpace(given[0]), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return "", fault.New(fault.Unauthenticated, "The Authorization header must read `Bearer <token>`.")
		}
		if token = strings.TrimSpace(token); token == "" {
			return "", fault.New(fault.Unauthenticated, "The Authorization header holds no token.")
		}
		return token, nil
	}
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		for _, list := range r.Header.Values("Sec-WebSocket-Protocol") {
			for _, p := range strings.Split(list, ",") {
				if token, ok := strings.CutPrefix(strings.TrimSpace(p), bearerProtocol); ok {
					return token, nil
				}
			}
		}
	}
	return "", fault.New(fault.Unauthenticated, "This needs a token: log in with POST /api/v1/login and send the header `Authorization: Bearer <access token>`.")
}

// node finds the node that asks, by its certificate or else its address.
func (s *Service) node(r *http.Request, addr netip.Addr) (*api.Caller, error) {
	if cert := nodeCert(r); cert != nil {
		uid := cert.Subject.CommonName
		if !s.cfg.Nodes.CertValid(uid, cert.SerialNumber.Text(16)) {
			return nil, fault.New(fault.Forbidden, "The certificate of node %s is no longer valid: the node was deleted or has enrolled again.", uid)
		}
		return &api.Caller{Node: uid, Addr: addr}, nil
	}
	uid, ok := "", false
	if addr.IsValid() {
		uid, ok = s.cfg.Nodes.NodeByAddr(addr)
	}
	if !ok {
		return nil, fault.New(fault.NotFound, "No node found for ID=%s", addr)
	}
	if s.cfg.Nodes.Enrolled(uid) {
		return nil, fault.New(fault.Forbidden, "The node at %s has enrolled: its address alone no longer speaks for it, it must come over https with its certificate.", addr)
	}
	return &api.Caller{Node: uid, Addr: addr}, nil
}

// nodeCert is the certificate that the TLS layer verified against the head's
// CA; nil when there is none.
func nodeCert(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return nil
	}
	return r.TLS.VerifiedChains[0][0]
}
