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

// Admin lets an operating-system user use muster.
type Admin struct {
	kind.Meta
	Name        string      `json:"name"`
	Description string      `json:"description,omitempty"`
	Roles       []string    `json:"roles"`
	Keys        []string    `json:"keys,omitempty"`
	GUISettings kind.Values `json:"gui_settings,omitempty"`
	// Generation is that of the tokens which are good: one more ends all others.
	Generation int64 `json:"token_generation,omitempty"`
}

// admin is told where to find the rights, which depend on all kinds.
func admin(rights func() *Rights) *kind.Spec {
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
			kind.Field{Path: "roles", Summary: "what the admin may do; those of the creator when left out", Source: kind.User, Format: roleList(rights)},
			kind.Field{Path: "keys", Summary: "public SSH keys", Source: kind.User, Format: kind.List("ssh-keys", sshKey), Sub: kind.SubList},
			kind.Field{Path: "gui_settings", Summary: "kept for the web portal", Source: kind.User, Format: kind.Settings, Sub: kind.SubMap},
			kind.Field{Path: "token_generation", Summary: "how often all tokens of the admin were revoked", Source: kind.Head, Format: kind.Shown("integer")},
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
			return manageable(rights(), tx.By(), a, old)
		},
		After: func(tx kind.Tx, obj, old kind.Object) error {
			if obj == nil {
				if err := manageable(rights(), tx.By(), old.(*Admin), old); err != nil {
					return err
				}
			}
			return keepOneFullAdmin(rights(), tx, obj, old)
		},
	}
}

// manageable refuses what would give somebody rights that he lacks: a role for
// others or himself that allows more than his own, or a hand on an admin who
// may do more, whose keys or name would be a way to become him.
func manageable(r *Rights, by kind.Author, a *Admin, old kind.Object) error {
	entries := [][]string{a.Roles}
	if old != nil {
		entries = append(entries, old.(*Admin).Roles)
	}
	for _, roles := range entries {
		if more := r.Beyond(roles, by.May); len(more) > 0 {
			return fault.New(fault.Forbidden, "%s lacks %s, and so can neither give nor manage the roles %s of admin %s.", by.Name, some(more), strings.Join(roles, ", "), a.Name)
		}
	}
	return nil
}

// some names the first few permissions of a list.
func some(list []kind.Permission) string {
	const few = 3
	words := make([]string, 0, few+1)
	for i, p := range list {
		if i == few {
			words = append(words, fmt.Sprintf("and %d more", len(list)-few))
			break
		}
		words = append(words, string(p))
	}
	return strings.Join(words, ", ")
}

// keepOneFullAdmin refuses the change that would leave nobody to undo it.
func keepOneFullAdmin(r *Rights, tx kind.Tx, obj, old kind.Object) error {
	if old == nil || !r.full(old.(*Admin).Roles) {
		return nil
	}
	if obj != nil && r.full(obj.(*Admin).Roles) {
		return nil
	}
	left := false
	err := tx.Each(KindAdmin, func(o kind.Object) error {
		left = left || r.full(o.(*Admin).Roles)
		return nil
	})
	if err == nil && !left {
		err = fault.New(fault.Conflict, "%s is the last admin with %s: give that role to another admin first.", old.(*Admin).Name, RoleFullAdmin)
	}
	return err
}

// roleList is a list of roles, or one string with commas.
func roleList(rights func() *Rights) kind.Format {
	role := kind.Parsed("role", func(s string) (string, error) { return rights().parse(s) })
	list := kind.List("roles", role)
	return kind.Format{Name: list.Name, Schema: list.Schema, Parse: func(raw json.RawMessage) (any, error) {
		var s string
		if json.Unmarshal(raw, &s) == nil {
			words := []string{}
			for _, w := range strings.Split(s, ",") {
				if w = strings.TrimSpace(w); w != "" {
					words = append(words, w)
				}
			}
			raw, _ = json.Marshal(words) // strings can always be written
		}
		return list.Parse(raw)
	}}
}

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
