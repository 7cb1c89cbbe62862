package kind

import "slices"

// Permission is what a caller must hold to do something. A kind has one to
// read and one to write it; a special route names its own.
type Permission string

// The permissions that say how a caller is known rather than what it may do.
const (
	Public    Permission = "public"     // no token; anybody
	LoggedIn  Permission = "logged-in"  // a valid access token of an admin with any role
	NodeOnly  Permission = "node"       // the node itself: by its certificate, or by its address if it never enrolled
	HeadOnly  Permission = "head"       // the address of a head; other loopback addresses are none
	OnlyLocal Permission = "local-self" // answered by the handler's own check, which its doc must describe
)

// The permissions that no kind implies. A new one is listed in Special, too.
const (
	NodesExecCommand    Permission = "NodesExecCommand"
	NodesPowerControl   Permission = "NodesPowerControl"
	NodesWriteGroups    Permission = "NodesWriteGroups"
	ReservedAttribRead  Permission = "ReservedAttribRead"
	ReservedAttribWrite Permission = "ReservedAttribWrite"
	AdminsMintTokens    Permission = "AdminsMintTokens" // make tokens for others who may do no more than oneself
	AuditRead           Permission = "AuditRead"
)

// Special lists the permissions that no kind implies.
func Special() []Permission {
	return []Permission{NodesExecCommand, NodesPowerControl, NodesWriteGroups, ReservedAttribRead, ReservedAttribWrite, AdminsMintTokens, AuditRead}
}

// Permissions lists every permission that an admin can hold, sorted: those of
// the kinds and the special ones.
func Permissions(specs []*Spec) []Permission {
	all := Special()
	for _, s := range specs {
		all = append(all, s.Read, s.Write)
		for _, f := range s.Fields {
			if f.Write != "" {
				all = append(all, f.Write)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Author is who makes a change, or asks to see something: an admin, a node, or
// the head itself.
type Author struct {
	Name  string
	Roles []string
	From  string // address that the request came from, for the audit trail
	// Can says what the author may do beyond what let him in. The head itself,
	// for which it is nil, may do everything.
	Can func(Permission) bool
}

// May says whether the author holds the permission.
func (a Author) May(p Permission) bool { return a.Can == nil || a.Can(p) }

// Itself says whether the head makes the change by itself.
func (a Author) Itself() bool { return a.Can == nil }
