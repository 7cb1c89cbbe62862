package kind

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

// The permissions that no kind implies.
const (
	NodesExecCommand    Permission = "NodesExecCommand"
	NodesPowerControl   Permission = "NodesPowerControl"
	NodesWriteGroups    Permission = "NodesWriteGroups"
	ReservedAttribRead  Permission = "ReservedAttribRead"
	ReservedAttribWrite Permission = "ReservedAttribWrite"
)
