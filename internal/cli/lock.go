package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/bundle"
)

func (a *app) lockCommand() *cobra.Command {
	var f sourceFlags
	var update bool
	c := &cobra.Command{
		Use:   "lock [--update [NAME...]]",
		Short: "Pin everything that a spec leads to, in a lock file",
		Long: `Resolve every image, artifact, chart and file of a spec to its digest, and write that down in
the lock beside the spec (sealift.yaml has sealift.lock). A pack takes what the lock pins,
and 'pack --frozen' refuses where the lock is missing or not up to date.

What is locked stays as it is: without --update only what is new in the spec is added, and
what is gone is removed. --update moves everything forward, or only what is named: an
image with or without its tag, a pattern with *, a release, a chart, a file. What changed
is printed.

` + sourceHelp,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && !update {
				return &usageError{errors.New("names need --update"), cmd.CommandPath()}
			}
			return a.lock(cmd, &f, update, args)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&update, "update", false, "move forward what is named, or everything")
	onlyFlag(c.Flags(), "update")
	return c
}

func (a *app) lock(cmd *cobra.Command, f *sourceFlags, update bool, names []string) (err error) {
	ctx, path := cmd.Context(), bundle.LockPath(f.spec)
	spec, err := bundle.LoadSpec(f.spec)
	if err != nil {
		return err
	}
	s, err := f.open(a, cmd, a.reporter())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	old, err := readLock(f.spec)
	if err != nil {
		return err
	}
	s.Lock, s.CheckTags = old, true
	if update && old != nil {
		if s.Lock, err = old.Without(names); err != nil {
			return err
		}
	}
	if s.Created, _, err = a.created(); err != nil {
		return err
	}
	r, err := bundle.Resolve(ctx, spec, s.Options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.Lock.Write(path); err != nil {
		return err
	}
	if old == nil {
		old = &bundle.Lock{}
	}
	d := bundle.CompareLocks(old, r.Lock)
	r.Warnings = append(r.Warnings, renamed(d)...)
	a.warnings(r.Warnings)
	result := struct {
		Lock      string                 `json:"lock"`
		Changed   bool                   `json:"changed"`
		Images    int                    `json:"images"`
		Artifacts int                    `json:"artifacts"`
		Charts    int                    `json:"charts"`
		Files     int                    `json:"files"`
		Changes   *bundle.LockDifference `json:"changes"`
		Warnings  []string               `json:"warnings"`
	}{path, d.Changed(), len(r.Lock.Images), len(r.Lock.Artifacts), len(r.Lock.Charts), len(r.Lock.Files), d, append([]string{}, r.Warnings...)}
	return a.print(result, func(w io.Writer) {
		if !result.Changed {
			fmt.Fprintf(w, "%s is up to date: %s\n", path, lockCounts(r.Lock))
			return
		}
		fmt.Fprintf(w, "wrote %s: %s\n", path, lockCounts(r.Lock))
		for _, line := range d.Lines() {
			fmt.Fprintf(w, "  %s\n", line)
		}
	})
}

// renamed says what has another content under the name that it had: where the earlier one is, sites
// have to let tags move.
func renamed(d *bundle.LockDifference) []string {
	var names []string
	for i := range d.Images.Changed {
		c := &d.Images.Changed[i]
		if c.Old.Ref == c.New.Ref && c.Old.Digest != c.New.Digest {
			names = append(names, "image "+c.New.Ref)
		}
	}
	for i := range d.Charts.Changed {
		c := &d.Charts.Changed[i]
		if c.Old.Version == c.New.Version && c.Old.Digest != c.New.Digest {
			names = append(names, "chart "+c.New.Release+" "+c.New.Version)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{"another content under the same tag or version; sites that were delivered the earlier one need --move-tags: " + strings.Join(names, ", ")}
}

func lockCounts(l *bundle.Lock) string {
	s := fmt.Sprintf("%s, %s, %s", count(len(l.Images), "image"), count(len(l.Charts), "chart"), count(len(l.Files), "file"))
	if len(l.Artifacts) > 0 {
		s += ", " + count(len(l.Artifacts), "artifact")
	}
	return s
}

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of specs, for editors",
		Long: `Print the JSON schema of sealift.yaml. Editors with a YAML language server take it by a
comment on the first line of a spec:

  # yaml-language-server: $schema=sealift.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			raw, err := bundle.Schema()
			if err != nil {
				return err
			}
			if _, err := a.env.Stdout.Write(raw); err != nil {
				return fmt.Errorf("printing the schema: %w", err)
			}
			return nil
		},
	}
}
