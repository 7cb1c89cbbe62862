package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/shared/kind"
)

// completeTime bounds how long a shell waits for names.
const completeTime = 2 * time.Second

type completer = func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective)

// thenFile offers names for the first word, and files after it.
func thenFile(names cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return names(cmd, args, part)
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
}

// completeNames offers the names of a kind's objects, without those that are
// there already. A head that cannot be reached offers nothing, silently: the
// shell has no place for an error.
func (m *muster) completeNames(spec *kind.Spec) completer {
	return func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		const no = cobra.ShellCompDirectiveNoFileComp
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		c, err := m.connect()
		if err != nil || spec.Singleton {
			return nil, no
		}
		docs, err := listed(ctx, c, spec)
		if err != nil {
			return nil, no
		}
		given := map[string]bool{}
		for _, a := range args {
			given[a] = true
		}
		var out []string
		for _, d := range docs {
			if name := d.name(spec); strings.HasPrefix(name, part) && !given[name] {
				out = append(out, name)
			}
		}
		return out, no
	}
}

// completeField offers the values that a field may have.
func (k *kindVerbs) completeField(f *kind.Field, s shape) completer {
	switch ref := k.muster.spec(f.Ref); {
	case ref != nil:
		return k.completeNames(ref)
	case len(f.Format.Values) > 0:
		return cobra.FixedCompletions(f.Format.Values, cobra.ShellCompDirectiveNoFileComp)
	case s == isBool:
		return cobra.FixedCompletions([]string{"true", "false"}, cobra.ShellCompDirectiveNoFileComp)
	}
	return cobra.NoFileCompletions
}
