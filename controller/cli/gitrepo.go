package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

// gitrepoCommands are those of the git repositories' own endpoints.
func (m *muster) gitrepoCommands() []*cobra.Command {
	var mapping, gone []string
	var all bool
	var filter string
	var limit int
	names := m.completeNames(m.spec(object.KindGitrepo))
	where := &cobra.Command{
		Use: "url NAME", Short: "Print the URL to clone", Args: cobra.ExactArgs(1), ValidArgsFunction: names,
		RunE: func(cmd *cobra.Command, args []string) error { return m.gitURL(cmd.Context(), args[0]) },
	}
	sync := &cobra.Command{
		Use: "sync NAME [status|checkout|reset|pull|rebase]", Short: "Synchronize with the remote",
		Long: `Synchronize a git repository with its url or upstream.

Without an action it is reset where the repository is a copy (url), and pull
where it has commits of its own (upstream). status only compares.`,
		Args: cobra.RangeArgs(1, 2), ValidArgsFunction: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			action := ""
			if len(args) == 2 {
				action = args[1]
			}
			return m.syncGit(cmd.Context(), args[0], action, mapping)
		},
	}
	sync.Flags().StringArrayVar(&mapping, "branch", nil, "only this branch, LOCAL:REMOTE or NAME for both; once for each")
	branches := &cobra.Command{
		Use: "branches NAME", Short: "List branches, or delete some", Args: cobra.ExactArgs(1), ValidArgsFunction: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(gone) > 0 {
				return m.deleteBranches(cmd.Context(), args[0], gone)
			}
			return m.listBranches(cmd.Context(), args[0], all, filter)
		},
	}
	branches.Flags().BoolVar(&all, "all", false, "also those of the remote")
	branches.Flags().StringVar(&filter, "filter", "", "only those whose name has this in it, or fits it where it has * or ?")
	branches.Flags().StringArrayVar(&gone, "delete", nil, "delete this branch; once for each")
	log := &cobra.Command{
		Use: "log NAME [BRANCH]", Short: "Show the newest commits", Args: cobra.RangeArgs(1, 2), ValidArgsFunction: names,
		RunE: func(cmd *cobra.Command, args []string) error { return m.gitLog(cmd.Context(), args, limit) },
	}
	log.Flags().IntVarP(&limit, "limit", "n", 20, "how many")
	return []*cobra.Command{where, sync, branches, log}
}

func (m *muster) gitURL(ctx context.Context, name string) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if _, err := c.Download(ctx, client.Path(object.KindGitrepo, name, "url"), &text, nil); err != nil {
		return err
	}
	_, err = fmt.Fprintln(m.Stdout, printable(text.String()))
	return err
}

func (m *muster) syncGit(ctx context.Context, name, action string, mapping []string) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	if action == "" {
		repo, err := client.Get[object.Gitrepo](ctx, c, object.KindGitrepo, name)
		if err != nil {
			return err
		}
		action = "pull"
		if _, mirror := repo.Remote(); mirror {
			action = "reset"
		}
	}
	in := map[string]any{"action": action}
	if len(mapping) > 0 {
		in["branchmap"] = mapping
	}
	var raw json.RawMessage
	if err := c.Call(ctx, "POST", client.Path(object.KindGitrepo, name, "sync"), in, &raw); err != nil {
		return err
	}
	var out struct {
		Error    string
		Branches []struct {
			Local, Remote, Commit, After, Result string
			RemoteCommit                         string `json:"remote_commit"`
			Ahead, Behind                        int
		}
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return err
	}
	if out.Error != "" {
		m.complain(out.Error)
	}
	return m.value(raw, name, func() [][]string {
		rows := [][]string{{"BRANCH", "REMOTE", "COMMIT", "RESULT"}}
		for _, b := range out.Branches {
			commit, result := b.After, b.Result
			if action == "status" {
				commit, result = b.Commit, fmt.Sprintf("ahead %d, behind %d", b.Ahead, b.Behind)
				if b.Commit == "" || b.RemoteCommit == "" {
					result = "only on one side"
				}
			}
			rows = append(rows, []string{b.Local, b.Remote, short(commit), result})
		}
		return rows
	})
}

// short is a commit as people write it.
func short(commit string) string { return commit[:min(len(commit), 12)] }

func (m *muster) listBranches(ctx context.Context, name string, all bool, filter string) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	in := map[string]any{"all": all, "filter": filter}
	if err := c.Call(ctx, "GET", client.Path(object.KindGitrepo, name, "branches"), in, &raw); err != nil {
		return err
	}
	var list []struct {
		Name, Commit, Author, Subject, Of string
		Time                              float64
		Head                              bool
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	found := make([]string, 0, len(list))
	rows := [][]string{{"BRANCH", "OF", "COMMIT", "TIME", "AUTHOR", "SUBJECT"}}
	for _, b := range list {
		found = append(found, b.Name)
		if b.Head {
			b.Name += " *"
		}
		rows = append(rows, []string{b.Name, b.Of, short(b.Commit), timeText(b.Time), b.Author, b.Subject})
	}
	return m.names(raw, found, rows)
}

// names shows a list: as it is, as names one a line, or as a table.
func (m *muster) names(raw json.RawMessage, names []string, rows [][]string) error {
	if m.output != formName {
		return m.value(raw, "", func() [][]string { return rows })
	}
	for _, name := range names {
		if _, err := fmt.Fprintln(m.Stdout, printable(name)); err != nil {
			return err
		}
	}
	return nil
}

func (m *muster) deleteBranches(ctx context.Context, name string, gone []string) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	return c.Call(ctx, "DELETE", client.Path(object.KindGitrepo, name, "branches"), map[string]any{"branches": gone}, nil)
}

func (m *muster) gitLog(ctx context.Context, args []string, limit int) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	if len(args) == 2 {
		query.Set("branch", args[1])
	}
	var raw json.RawMessage
	if err := c.Call(ctx, "GET", client.Path(object.KindGitrepo, args[0], "log")+"?"+query.Encode(), nil, &raw); err != nil {
		return err
	}
	var list []struct {
		Commit, Author, Subject string
		Time                    float64
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	var found []string
	rows := [][]string{{"COMMIT", "TIME", "AUTHOR", "SUBJECT"}}
	for _, e := range list {
		found = append(found, e.Commit)
		rows = append(rows, []string{short(e.Commit), timeText(e.Time), e.Author, strings.TrimSpace(e.Subject)})
	}
	return m.names(raw, found, rows)
}
