package object

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"muster/shared/fault"
	"muster/shared/kind"
)

// RoleFullAdmin may do everything; RoleAuthUser may log in and read.
const (
	RoleFullAdmin = "role.fulladmin"
	RoleAuthUser  = "role.authuser"
)

// Admin lets an operating-system user use muster.
type Admin struct {
	kind.Meta
	Name        string      `json:"name"`
	Description string      `json:"description,omitempty"`
	Roles       []string    `json:"roles"`
	Keys        []string    `json:"keys,omitempty"`
	GUISettings kind.Values `json:"gui_settings,omitempty"`
}

func admin() *kind.Spec {
	return &kind.Spec{
		Name: KindAdmin, Plural: "admins", Title: "Admin",
		Doc:   "An operating-system user who may use muster.",
		New:   func() kind.Object { return &Admin{} },
		Names: []string{"name"},
		Read:  "AdminsRead",
		Write: "AdminsWrite",
		Fields: meta(
			kind.Field{Path: "name", Summary: "the user's name in the operating system", Source: kind.User, Format: kind.Name, Required: true, Unique: true},
			descriptionField(),
			kind.Field{Path: "roles", Summary: "what the admin may do; those of the creator when left out", Source: kind.User, Format: roleList},
			kind.Field{Path: "keys", Summary: "public SSH keys", Source: kind.User, Format: kind.List("ssh-keys", sshKey), Sub: kind.SubList},
			kind.Field{Path: "gui_settings", Summary: "kept for the web portal", Source: kind.User, Format: kind.Settings, Sub: kind.SubMap},
		),
		Columns: []string{"name", "roles", "description"},
		Prepare: func(tx kind.Tx, obj, old kind.Object) error {
			a := obj.(*Admin)
			if a.Roles == nil {
				a.Roles = slices.Clone(tx.By().Roles)
			}
			if a.Roles == nil {
				a.Roles = []string{}
			}
			return nil
		},
		After: keepOneFullAdmin,
	}
}

// keepOneFullAdmin refuses the change that would leave nobody to undo it.
func keepOneFullAdmin(tx kind.Tx, obj, old kind.Object) error {
	if old == nil || !slices.Contains(old.(*Admin).Roles, RoleFullAdmin) {
		return nil
	}
	if obj != nil && slices.Contains(obj.(*Admin).Roles, RoleFullAdmin) {
		return nil
	}
	left := false
	err := tx.Each(KindAdmin, func(o kind.Object) error {
		left = left || slices.Contains(o.(*Admin).Roles, RoleFullAdmin)
		return nil
	})
	if err == nil && !left {
		err = fault.New(fault.Conflict, "%s is the last admin with %s: give that role to another admin first.", old.(*Admin).Name, RoleFullAdmin)
	}
	return err
}

var role = kind.Parsed("role", func(s string) (string, error) {
	name, ok := strings.CutPrefix(s, "role.")
	if !ok || name == "" || len(s) > kind.MaxName || strings.ContainsAny(name, ", \t\n") {
		return "", fmt.Errorf("%q is not a role such as %s", s, RoleFullAdmin)
	}
	return s, nil
})

// roleList is a list of roles, or one string with commas.
var roleList = kind.Format{Name: "roles", Parse: func(raw json.RawMessage) (any, error) {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		words := []string{}
		for _, w := range strings.Split(s, ",") {
			if w = strings.TrimSpace(w); w != "" {
				words = append(words, w)
			}
		}
		raw, _ = json.Marshal(words)
	}
	return kind.List("roles", role).Parse(raw)
}}

var sshKey = kind.Parsed("ssh-key", func(s string) (string, error) {
	if strings.Contains(s, "PRIVATE KEY") {
		return "", errors.New("this is a private key: keep it to yourself and give the public one (the .pub file)")
	}
	if len(s) > 16<<10 {
		return "", fmt.Errorf("%d bytes are too long for a public key", len(s))
	}
	s = strings.TrimSpace(s)
	if _, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(s)); err != nil || len(rest) > 0 {
		return "", errors.New("is not one public SSH key in the form of a .pub file")
	}
	return s, nil
})
