package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/kind"
	"muster/shared/object"
)

// kindCommand gives a kind's commands, all from its declaration, and beside
// them those of its own endpoints.
func (m *muster) kindCommand(spec *kind.Spec) *cobra.Command {
	k := &kindVerbs{m, spec}
	c := group(&cobra.Command{Use: spec.Name, Short: spec.Doc, Aliases: aliases(spec)})
	if spec.Singleton {
		c.AddCommand(k.get(), k.update(nil), k.fields())
		c.AddCommand(m.clusterCommands()...)
		return c
	}
	var files *bootFiles
	if spec.Name == object.KindBootconfig {
		files = &bootFiles{m: m}
	}
	c.AddCommand(k.ls(), k.get(), k.create(files), k.update(files), k.rm(), k.fields())
	for i := range spec.Fields {
		if spec.Fields[i].Sub != kind.NoSub {
			c.AddCommand(k.sub(&spec.Fields[i]))
		}
	}
	switch spec.Name {
	case object.KindNode:
		c.AddCommand(m.statusCommand(), m.hardwareCommand(), m.nodeBootCommand(), m.discoverCommand())
	case object.KindAdmin:
		c.AddCommand(m.adminCommands()...)
	case object.KindImage:
		c.AddCommand(m.imageCommands()...)
	case object.KindBootconfig:
		c.AddCommand(m.bootconfigCommands()...)
	case object.KindGitrepo:
		c.AddCommand(m.gitrepoCommands()...)
	case object.KindHead:
		c.AddCommand(m.headCommands()...)
	case object.KindNamingpool:
		c.AddCommand(m.namingCommands()...)
	case object.KindRepo:
		c.AddCommand(m.repoCommands()...)
	case object.KindOverlay:
		c.AddCommand(m.overlayCommands()...)
	case object.KindDistro:
		c.AddCommand(m.distroCommands()...)
	}
	return c
}

// aliases lets people say the plural, as paths do, and the kind's other names.
func aliases(spec *kind.Spec) []string {
	if spec.Plural == "" {
		return nil
	}
	words := []string{spec.Plural}
	for _, a := range spec.Aliases {
		words = append(words, a.Name, a.Plural)
	}
	return words
}

// kindVerbs makes the commands that every kind has.
type kindVerbs struct {
	*muster
	spec *kind.Spec
}

// isNode says whether the kind's objects are given as sets.
func (k *kindVerbs) isNode() bool { return k.spec.Name == object.KindNode }

// words is how help writes the names that a command takes.
func (k *kindVerbs) words() string {
	switch {
	case k.spec.Singleton:
		return ""
	case k.isNode():
		return " {SET… | -n SET | -a}"
	}
	return " NAME…"
}

// named makes a command that takes names of the kind's objects.
func (k *kindVerbs) named(use, short string, s *selection, run func(ctx context.Context, cmd *cobra.Command, words []string) error) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, ValidArgsFunction: k.completeNames(k.spec),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := k.connect(); err != nil {
				return err
			}
			return run(cmd.Context(), cmd, args)
		},
	}
	if k.spec.Singleton {
		c.Args, c.ValidArgsFunction = cobra.NoArgs, nil
	}
	if k.isNode() {
		s.flags(c, k.muster)
	}
	return c
}

func (k *kindVerbs) ls() *cobra.Command {
	var s selection
	use := "ls" + strings.NewReplacer("{", "[", "}", "]", "NAME…", "[NAME…]").Replace(k.words())
	c := k.named(use, "List "+k.spec.Plural, &s, func(ctx context.Context, _ *cobra.Command, words []string) error {
		if len(words) > 0 || s.selector != "" || len(s.sets) > 0 {
			return k.each(ctx, &s, words, false, false)
		}
		docs, err := listed(ctx, k.client, k.spec)
		if err != nil {
			return err
		}
		return k.show(ctx, k.spec, docs, false, false)
	})
	c.Aliases = []string{"list"}
	return c
}

func (k *kindVerbs) get() *cobra.Command {
	var s selection
	c := k.named("get"+k.words(), "Show every field", &s, func(ctx context.Context, _ *cobra.Command, words []string) error {
		if k.spec.Singleton {
			doc, err := client.Get[document](ctx, k.client, k.spec.Name, "")
			if err != nil {
				return err
			}
			return k.show(ctx, k.spec, []document{doc}, true, true)
		}
		return k.each(ctx, &s, words, true, s.single(words))
	})
	if k.spec.Name != object.KindOverlay { // which shows what a node gets
		c.Aliases = []string{"show"}
	}
	return c
}

// each reads the objects and shows those that there are.
func (k *kindVerbs) each(ctx context.Context, s *selection, words []string, full, single bool) error {
	names, err := k.targets(ctx, k.spec, s, words)
	if err != nil {
		return err
	}
	docs := make([]document, len(names))
	errs := each(ctx, atOnce, names, func(i int, name string) (err error) {
		docs[i], err = client.Get[document](ctx, k.client, k.spec.Name, name)
		return err
	})
	found := docs[:0]
	for i := range docs {
		if errs[i] == nil {
			found = append(found, docs[i])
		}
	}
	if len(found) > 0 {
		if err := k.show(ctx, k.spec, found, full, single); err != nil {
			return err
		}
	}
	return k.report(ctx, names, errs)
}

func (k *kindVerbs) create(files *bootFiles) *cobra.Command {
	_, named := k.nameField()
	use := "create"
	if named {
		use += " NAME"
	}
	var flags *fieldFlags
	c := &cobra.Command{
		Use: use, Short: "Create " + k.spec.A(), ValidArgsFunction: cobra.NoFileCompletions,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 && !named {
				return fmt.Errorf("%s is not named by you: give only flags", k.spec.A())
			}
			return cobra.MaximumNArgs(1)(nil, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			in := flags.given()
			if len(args) == 1 {
				if _, twice := in["name"]; twice {
					return errors.New("the name is given twice: as an argument and with --name")
				}
				in["name"], _ = json.Marshal(args[0]) // a string can always be written
			}
			return k.runCreate(cmd.Context(), in, files)
		},
	}
	flags = k.flags(c, true)
	if files != nil {
		files.flags(c)
	}
	return c
}

func (k *kindVerbs) nameField() (*kind.Field, bool) {
	f, ok := k.spec.Field("name")
	return f, ok && f.Source == kind.User
}

func (k *kindVerbs) runCreate(ctx context.Context, in map[string]json.RawMessage, files *bootFiles) error {
	if err := files.prepare(ctx); err != nil {
		return err
	}
	defer files.close()
	c, err := k.connect()
	if err != nil {
		return err
	}
	uid, err := c.Create(ctx, k.spec.Plural, in)
	if err != nil {
		return err
	}
	if err := files.upload(ctx, uid); err != nil {
		return fmt.Errorf("the %s was created, but not all was uploaded: %w", k.spec.Name, err)
	}
	doc, err := client.Get[document](ctx, c, k.spec.Name, uid)
	if err != nil {
		return err
	}
	return k.show(ctx, k.spec, []document{doc}, false, true)
}

func (k *kindVerbs) update(files *bootFiles) *cobra.Command {
	var s selection
	var flags *fieldFlags
	var unset []string
	c := k.named("update"+k.words(), "Change the fields that are given", &s, func(ctx context.Context, _ *cobra.Command, words []string) error {
		in := flags.given()
		for _, name := range unset {
			path := strings.ReplaceAll(name, "-", "_")
			if f, ok := k.spec.Field(path); !ok || f.Source != kind.User {
				return fmt.Errorf("--unset %s: %s has no such field to set; see `muster %s fields`", name, k.spec.A(), k.spec.Name)
			}
			if _, twice := in[path]; twice {
				return fmt.Errorf("%s is both given and unset", name)
			}
			in[path] = json.RawMessage("null")
		}
		if len(in) == 0 && !files.any() {
			return errors.New("nothing to change: give a field, such as --" + flagName(k.spec.Writable()[0].Path))
		}
		return k.runUpdate(ctx, &s, words, in, files)
	})
	flags = k.flags(c, false)
	c.Flags().StringArrayVar(&unset, "unset", nil, "unset this field")
	must(c.RegisterFlagCompletionFunc("unset", cobra.FixedCompletions(flags.names(), cobra.ShellCompDirectiveNoFileComp)))
	if files != nil {
		files.flags(c)
	}
	return c
}

func (k *kindVerbs) runUpdate(ctx context.Context, s *selection, words []string, in map[string]json.RawMessage, files *bootFiles) error {
	names := []string{""}
	if !k.spec.Singleton {
		var err error
		if names, err = k.targets(ctx, k.spec, s, words); err != nil {
			return err
		}
	}
	if err := files.prepare(ctx); err != nil {
		return err
	}
	defer files.close()
	docs := make([]document, len(names))
	limit := atOnce
	if files.any() {
		limit = 1 // one upload, one bar at a time
	}
	errs := each(ctx, limit, names, func(i int, name string) (err error) {
		if len(in) > 0 {
			if err := k.client.Patch(ctx, k.spec.Name, name, in); err != nil {
				return err
			}
		}
		if err := files.upload(ctx, name); err != nil || !k.chosen {
			return err
		}
		docs[i], err = client.Get[document](ctx, k.client, k.spec.Name, renamed(name, in))
		return err
	})
	if err := k.report(ctx, names, errs); err != nil || !k.chosen {
		return err
	}
	return k.show(ctx, k.spec, docs, false, k.spec.Singleton || s.single(words))
}

// renamed is how to call an object after the change.
func renamed(name string, in map[string]json.RawMessage) string {
	var now string
	if name != "" && !kind.UIDPattern.MatchString(name) && json.Unmarshal(in["name"], &now) == nil && now != "" {
		return now
	}
	return name
}

func (k *kindVerbs) rm() *cobra.Command {
	var s selection
	c := k.named("rm"+k.words(), "Delete for good", &s, func(ctx context.Context, _ *cobra.Command, words []string) error {
		names, err := k.targets(ctx, k.spec, &s, words)
		if err != nil {
			return err
		}
		return k.report(ctx, names, each(ctx, atOnce, names, func(_ int, name string) error {
			return k.client.Delete(ctx, k.spec.Name, name)
		}))
	})
	c.Aliases = []string{"delete"}
	return c
}

// fields shows the declaration.
func (k *kindVerbs) fields() *cobra.Command {
	return &cobra.Command{
		Use: "fields", Short: "What " + k.spec.A() + " is made of", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if k.output == formJSON || k.output == formYAML {
				c, err := k.connect()
				if err != nil {
					return err
				}
				class := k.spec.Plural
				if k.spec.Singleton {
					class = k.spec.Name
				}
				var raw json.RawMessage
				if err := c.Call(cmd.Context(), "GET", client.Path(class, "meta"), nil, &raw); err != nil {
					return err
				}
				return k.raw(raw)
			}
			rows := [][]string{{"FIELD", "SET BY", "FORMAT", "DEFAULT", "SUMMARY"}}
			for _, f := range k.spec.Fields {
				rows = append(rows, []string{f.Path, string(f.Source), formatText(&f), f.Default, f.Summary})
			}
			if k.output == formName {
				for _, r := range rows[1:] {
					fmt.Fprintln(k.Stdout, r[0])
				}
				return nil
			}
			return k.table(rows)
		},
	}
}

func formatText(f *kind.Field) string {
	text := f.Format.Name
	if f.Ref != "" {
		text = f.Ref
	}
	if len(f.Format.Values) > 0 {
		text = strings.Join(f.Format.Values, "|")
	}
	if f.Required {
		text += ", required"
	}
	return text
}
