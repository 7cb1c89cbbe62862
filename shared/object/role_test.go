package object

import (
	"slices"
	"strings"
	"testing"

	"muster/shared/kind"
)

// What each role allows beside reading, which is written here once more so
// that no change of the table, or of a kind's permissions, goes unseen.
func TestWhatRolesAllow(t *testing.T) {
	specs := All()
	r := NewRights(specs)
	var reads []string
	for _, s := range specs {
		if !slices.Contains(reads, string(s.Read)) {
			reads = append(reads, string(s.Read))
		}
	}
	for role, more := range map[string]string{
		RoleAuthUser:        "",
		RoleOnsiteEngineer:  "NodesWrite NodesPowerControl",
		RoleImagingAdmin:    "ImagesWrite BootconfigsWrite OverlaysWrite DistrosWrite ReposWrite GitreposWrite ReservedAttribRead",
		RoleProductionAdmin: "NodesWrite NodesWriteGroups NodesPowerControl NodesExecCommand AttribsWrite DyngroupsWrite NamingpoolsWrite NetsWrite HostnamesWrite OverlaysWrite ReservedAttribRead ReservedAttribWrite",
	} {
		want := append(append([]string{string(kind.LoggedIn)}, reads...), strings.Fields(more)...)
		for _, p := range slices.Clone(want) {
			if p != string(kind.LoggedIn) && !slices.Contains(r.permissions, kind.Permission(p)) {
				if p != "HostnamesWrite" { // its kind may not be part of this head
					t.Errorf("%s: no kind and nothing else has the permission %s", role, p)
				}
				want = slices.DeleteFunc(want, func(x string) bool { return x == p })
			}
		}
		var got []string
		for p := range r.Of([]string{role}) {
			got = append(got, string(p))
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s allows\n%v, want\n%v", role, got, want)
		}
	}
	if got := r.Of([]string{RoleFullAdmin}); len(got) != len(r.permissions)+1 {
		t.Errorf("%s allows %d of %d", RoleFullAdmin, len(got)-1, len(r.permissions))
	}
}

func TestRolesAddUpButForWhatIsTakenAway(t *testing.T) {
	r := NewRights(All())
	can := func(p kind.Permission, entries ...string) bool { return r.Of(entries)[p] }
	for _, c := range []struct {
		p       kind.Permission
		entries string
		want    bool
	}{
		{"NodesRead", "", false},
		{kind.LoggedIn, "", false},
		{kind.LoggedIn, "role.from.the.future", false},
		{kind.LoggedIn, "NodesRead", true},
		{"NodesRead", "NodesRead", true},
		{"NodesWrite", "NodesRead", false},
		{"NodesWrite", RoleImagingAdmin, false},
		{"NodesWrite", RoleImagingAdmin + " " + RoleOnsiteEngineer, true},
		{"ImagesWrite", RoleImagingAdmin + " " + RoleOnsiteEngineer, true},
		{"ImagesWrite", RoleImagingAdmin + " -ImagesWrite", false},
		{"ImagesWrite", "-ImagesWrite " + RoleFullAdmin + " ImagesWrite", false},
		{"ImagesRead", "-ImagesWrite " + RoleFullAdmin, true},
		{"ImagesRead", RoleFullAdmin + " " + RoleNoAccess, false},
		{kind.LoggedIn, RoleNoAccess + " " + RoleFullAdmin, false},
		{kind.Public, RoleFullAdmin, false},
		{kind.NodeOnly, RoleFullAdmin, false},
		{kind.HeadOnly, RoleFullAdmin, false},
	} {
		if got := can(c.p, strings.Fields(c.entries)...); got != c.want {
			t.Errorf("%q gives %s: %v", c.entries, c.p, got)
		}
	}
}
