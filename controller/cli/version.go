package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/shared/client"
	"muster/shared/object"
)

// named splits NAME:VERSION.
func named(arg string) (name, version string) {
	name, version, _ = strings.Cut(arg, ":")
	return name, version
}

// listedVersion is a version as the head lists it.
type listedVersion struct {
	object.Version
	Current bool     `json:"current"`
	Pinned  []string `json:"pinned,omitempty"`
	Booted  bool     `json:"booted,omitempty"`
}

func (m *muster) imageLog() *cobra.Command {
	return &cobra.Command{
		Use: "log NAME", Short: "List an image's versions", Args: cobra.ExactArgs(1), ValidArgsFunction: m.completeNames(m.spec(object.KindImage)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			var all []listedVersion
			if err := c.Call(cmd.Context(), http.MethodGet, client.Path(object.KindImage, args[0], "versions"), nil, &all); err != nil {
				return err
			}
			return m.value(all, args[0], func() [][]string {
				rows := [][]string{{"VERSION", "SIZE", "CREATED", "BY", "DIGEST", "TAGS", "USED"}}
				for _, v := range all {
					at := time.UnixMicro(int64(v.Created * 1e6)).Local().Format(time.DateTime)
					rows = append(rows, []string{strconv.Itoa(v.Number), strconv.FormatInt(v.Size, 10), at, v.By, v.Digest[:min(12, len(v.Digest))], strings.Join(v.Tags, ","), v.used()})
				}
				return rows
			})
		},
	}
}

// used says what a version is used for.
func (v listedVersion) used() string {
	var out []string
	if v.Current {
		out = append(out, "content")
	}
	for _, p := range v.Pinned {
		out = append(out, "pinned by "+p)
	}
	if v.Booted {
		out = append(out, "booted")
	}
	return strings.Join(out, ", ")
}

// imageDifference is what the head tells of two versions.
type imageDifference struct {
	From  int `json:"from"`
	To    int `json:"to"`
	Files []struct {
		Path string `json:"path"`
		What string `json:"what"`
		Size int64  `json:"size,omitempty"`
	} `json:"files"`
	More     bool `json:"more,omitempty"`
	Packages []struct {
		Name string `json:"name"`
		From string `json:"from,omitempty"`
		To   string `json:"to,omitempty"`
	} `json:"packages"`
}

func (m *muster) imageDiff() *cobra.Command {
	return &cobra.Command{
		Use: "diff NAME:VERSION [NAME:VERSION]", Short: "Tell what differs between two versions of an image",
		Long: `Tell which files and packages differ between two versions of an image; the
second is the image's content when it is left out. A version is a number or a tag.`,
		Args: cobra.RangeArgs(1, 2), ValidArgsFunction: m.completeNames(m.spec(object.KindImage)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, from := named(args[0])
			q := url.Values{"from": {from}}
			if len(args) == 2 {
				other, to := named(args[1])
				if other != name {
					return fmt.Errorf("%s and %s are two images: name two versions of one", name, other)
				}
				q.Set("to", to)
			}
			c, err := m.connect()
			if err != nil {
				return err
			}
			var d imageDifference
			if err := c.Call(cmd.Context(), http.MethodGet, client.Path(object.KindImage, name, "diff")+"?"+q.Encode(), nil, &d); err != nil {
				return err
			}
			return m.value(d, name, func() [][]string { return d.rows() })
		},
	}
}

func (d imageDifference) rows() [][]string {
	rows := [][]string{{"WHAT", "NAME", "FROM", "TO"}}
	for _, p := range d.Packages {
		rows = append(rows, []string{"package", p.Name, p.From, p.To})
	}
	for _, f := range d.Files {
		rows = append(rows, []string{f.What, "/" + f.Path, "", ""})
	}
	if d.More {
		rows = append(rows, []string{"", "and more", "", ""})
	}
	return rows
}

func (m *muster) imageRollback() *cobra.Command {
	return &cobra.Command{
		Use: "rollback NAME:VERSION", Short: "Make a version the content of the image again", Args: cobra.ExactArgs(1), ValidArgsFunction: m.completeNames(m.spec(object.KindImage)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, version := named(args[0])
			if version == "" {
				return fmt.Errorf("say to which version: %s:1; `muster image log %s` lists them", name, name)
			}
			c, err := m.connect()
			if err != nil {
				return err
			}
			return c.Call(cmd.Context(), http.MethodPost, client.Path(object.KindImage, name, "rollback"), map[string]string{"version": version}, nil)
		},
	}
}

func (m *muster) imageTag() *cobra.Command {
	var remove bool
	cmd := &cobra.Command{
		Use: "tag NAME[:VERSION] TAG", Short: "Give a version of an image a tag, which keeps it", Args: cobra.ExactArgs(2), ValidArgsFunction: m.completeNames(m.spec(object.KindImage)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, version := named(args[0])
			if remove && version == "" {
				version = args[1]
			}
			c, err := m.connect()
			if err != nil {
				return err
			}
			body := map[string]any{"version": version, "tag": args[1], "remove": remove}
			return c.Call(cmd.Context(), http.MethodPost, client.Path(object.KindImage, name, "tag"), body, nil)
		},
	}
	cmd.Flags().BoolVar(&remove, "remove", false, "take the tag away")
	return cmd
}

func (m *muster) imageFsck() *cobra.Command {
	return &cobra.Command{
		Use: "fsck", Short: "Read all images that the head keeps and compare them with their digests", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := m.connect()
			if err != nil {
				return err
			}
			var h struct {
				Bytes    int64    `json:"bytes"`
				Damaged  int      `json:"damaged"`
				Versions []string `json:"versions"`
			}
			if err := c.Call(cmd.Context(), http.MethodPost, "/images/fsck", nil, &h); err != nil {
				return err
			}
			err = m.value(h, "", func() [][]string {
				rows := [][]string{{"READ", "DAMAGED"}, {strconv.FormatInt(h.Bytes, 10), strconv.Itoa(h.Damaged)}}
				for _, v := range h.Versions {
					rows = append(rows, []string{v, ""})
				}
				return rows
			})
			if err == nil && len(h.Versions) > 0 {
				err = fmt.Errorf("%d versions are not whole: %s", len(h.Versions), h.Versions[0])
			}
			return err
		},
	}
}
