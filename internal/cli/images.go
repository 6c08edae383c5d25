package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/manifest"
)

type imagesFlags struct {
	sourceFlags
	write           bool
	include, ignore []string
	why             string
	all             bool
}

func (a *app) imagesCommand() *cobra.Command {
	var f imagesFlags
	c := &cobra.Command{
		Use:   "images",
		Short: "List every image that a spec leads to, and why",
		Long: `Fetch and render the charts of a spec, in every way that the spec asks for, and list the
images that they name, with the places that name them. No registry is asked for an image.

What is only probably an image is listed by itself, and makes this command, and a pack,
fail until the spec says what it is: under images: (match: PATTERN) it goes in, under
ignoreImages: it stays out. With --write the spec is changed accordingly, and keeps its
comments and its order: as --include and --ignore say or, without these, as is answered on
standard input to a question for each.

Images that the values of a chart name, and that nothing uses, are listed as possibly
missing, with the values that may switch them on.

` + sourceHelp,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.images(cmd, &f) },
	}
	f.add(c)
	c.Flags().BoolVar(&f.all, "all-reasons", false, "list every place that names an image, not just the first ones")
	c.Flags().BoolVar(&f.write, "write", false, "write into the spec what is decided")
	c.Flags().StringSliceVar(&f.include, "include", nil, "with --write: reference or pattern to pack (repeatable); '**' stands for everything that is undecided")
	c.Flags().StringSliceVar(&f.ignore, "ignore", nil, "with --write: reference or pattern to leave out (repeatable)")
	c.Flags().StringVar(&f.why, "why", "", "with --ignore: the reason, for those who read the spec or the bundle")
	onlyFlag(c.Flags(), "write")
	onlyFlag(c.Flags(), "include")
	onlyFlag(c.Flags(), "ignore")
	return c
}

func (a *app) images(cmd *cobra.Command, f *imagesFlags) (err error) {
	ctx := cmd.Context()
	if !f.write && len(f.include)+len(f.ignore) > 0 {
		return &usageError{errors.New("--include and --ignore need --write"), cmd.CommandPath()}
	}
	for _, p := range f.include {
		if slices.Contains(f.ignore, p) {
			return &usageError{fmt.Errorf("--include and --ignore are both %q", p), cmd.CommandPath()}
		}
	}
	d, err := a.discover(cmd, f)
	if err != nil {
		return err
	}
	if f.write {
		edit, err := a.decide(ctx, f, d)
		if err != nil {
			return err
		}
		if len(edit.Include)+len(edit.Ignore) > 0 {
			if err := bundle.EditSpec(f.spec, edit); err != nil {
				return err
			}
			n := len(edit.Include) + len(edit.Ignore)
			fmt.Fprintf(a.env.Stderr, "wrote %s to %s\n", count(n, "decision"), f.spec)
			if d, err = a.discover(cmd, f); err != nil {
				return err
			}
		}
	}
	if err := a.print(d, func(w io.Writer) { writeDiscovery(w, d, f.all) }); err != nil {
		return err
	}
	a.warnings(d.Warnings)
	if len(d.Undecided) > 0 {
		return &bundle.UndecidedError{Images: d.Undecided}
	}
	return nil
}

// discover reads the spec and finds what it leads to, with the charts that the lock pins.
func (a *app) discover(cmd *cobra.Command, f *imagesFlags) (_ *bundle.Discovery, err error) {
	spec, err := bundle.LoadSpec(f.spec)
	if err != nil {
		return nil, err
	}
	s, err := f.open(a, cmd, a.reporter())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if s.Lock, err = readLock(f.spec); err != nil {
		return nil, err
	}
	return bundle.Discover(cmd.Context(), spec, s.Options)
}

// decide returns what is to be written: what the flags say, or what is answered.
func (a *app) decide(ctx context.Context, f *imagesFlags, d *bundle.Discovery) (bundle.Edit, error) {
	undecided := d.Undecided
	var e bundle.Edit
	if len(f.include)+len(f.ignore) > 0 {
		if err := checkDecisions(f, d); err != nil {
			return e, err
		}
		for _, p := range f.ignore {
			e.Ignore = append(e.Ignore, bundle.Decision{Match: p, Why: f.why})
		}
		for _, p := range f.include {
			if p != "**" {
				e.Include = append(e.Include, bundle.Decision{Match: p})
				continue
			}
			// Each by its name: what a later version of a chart brings is to be decided then.
			for i := range undecided {
				if !matches(f.ignore, undecided[i].Reference) {
					e.Include = append(e.Include, bundle.Decision{Match: undecided[i].Reference})
				}
			}
		}
		return e, nil
	}
	answers := bufio.NewScanner(newInterruptible(ctx, a.env.Stdin))
	for i := range undecided {
		img := &undecided[i]
		fmt.Fprintf(a.env.Stderr, "\n%s\n", printable(img.Reference))
		for _, r := range img.Reasons[:min(len(img.Reasons), 3)] {
			fmt.Fprintf(a.env.Stderr, "  %s\n", printable(reason(&r)))
		}
		for decided := false; !decided; {
			fmt.Fprintf(a.env.Stderr, "pack it? [y]es, [n]o and why, [s]kip: ")
			if !answers.Scan() {
				fmt.Fprintln(a.env.Stderr)
				if err := answers.Err(); err != nil {
					return e, err
				}
				// What was answered so far is worth keeping.
				return e, nil
			}
			decided = true
			word, why, _ := strings.Cut(strings.TrimSpace(answers.Text()), " ")
			switch strings.ToLower(word) {
			case "y", "yes":
				e.Include = append(e.Include, bundle.Decision{Match: img.Reference})
			case "n", "no":
				e.Ignore = append(e.Ignore, bundle.Decision{Match: img.Reference, Why: cmp.Or(strings.TrimSpace(why), f.why)})
			case "s", "skip":
			default:
				decided = false
				fmt.Fprintln(a.env.Stderr, "answer with y, with n and, if you like, the reason, or with s")
			}
		}
	}
	return e, nil
}

// UnknownDecisionError says that a decision is about nothing that could be decided.
type UnknownDecisionError struct {
	Pattern string
	// Missing says that it is about what is possibly missing, which no pattern brings.
	Missing bool
}

// Error quotes the pattern.
func (e *UnknownDecisionError) Error() string {
	if e.Missing {
		return fmt.Sprintf("%q is possibly missing: nothing names it in a way that could be let in", e.Pattern)
	}
	return fmt.Sprintf("%q is about nothing that was found", e.Pattern)
}

// checkDecisions finds patterns that are about nothing: typing errors, most likely.
func checkDecisions(f *imagesFlags, d *bundle.Discovery) error {
	anyOf := func(p string, list []bundle.FoundImage) bool {
		return slices.ContainsFunc(list, func(i bundle.FoundImage) bool { return bundle.MatchesReference(p, i.Reference) })
	}
	missing := func(p string) bool {
		return slices.ContainsFunc(d.Unused, func(u bundle.UnusedImage) bool { return bundle.MatchesReference(p, u.Reference) })
	}
	for _, p := range append(slices.Clone(f.include), f.ignore...) {
		if _, err := bundle.ParsePattern(p); p != "**" && err != nil {
			return err
		}
	}
	for _, p := range f.include {
		if p != "**" && !anyOf(p, d.Undecided) {
			return &UnknownDecisionError{p, missing(p)}
		}
	}
	for _, p := range f.ignore {
		if !anyOf(p, d.Undecided) && !anyOf(p, d.Images) && !missing(p) {
			return &UnknownDecisionError{p, false}
		}
	}
	return nil
}

func matches(patterns []string, reference string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return bundle.MatchesReference(p, reference) })
}

// reasonsShown is how many places are shown of one image.
const reasonsShown = 3

func writeDiscovery(w io.Writer, d *bundle.Discovery, all bool) {
	places := func(reasons []manifest.Reason) {
		n := len(reasons)
		if !all {
			n = min(n, reasonsShown)
		}
		for i := range reasons[:n] {
			fmt.Fprintf(w, "    %s\n", reason(&reasons[i]))
		}
		if n < len(reasons) {
			fmt.Fprintf(w, "    and %s (--all-reasons)\n", count(len(reasons)-n, "more place"))
		}
	}
	fmt.Fprintf(w, "%s:\n", count(len(d.Images), "image"))
	for i := range d.Images {
		fmt.Fprintf(w, "  %s\n", d.Images[i].Reference)
		places(d.Images[i].Reasons)
	}
	if len(d.Undecided) > 0 {
		fmt.Fprintf(w, "\nundecided, probably %s:\n", count(len(d.Undecided), "image"))
		for i := range d.Undecided {
			fmt.Fprintf(w, "  %s\n", d.Undecided[i].Reference)
			places(d.Undecided[i].Reasons)
		}
	}
	if len(d.Ignored) > 0 {
		fmt.Fprintf(w, "\nleft out by the spec, %s:\n", count(len(d.Ignored), "image"))
		for i := range d.Ignored {
			g := &d.Ignored[i]
			why := ""
			if g.Why != "" {
				why = ": " + g.Why
			}
			fmt.Fprintf(w, "  %s (%s%s)\n", g.Reference, g.Pattern, why)
			places(g.Reasons)
		}
	}
	if len(d.Unused) > 0 {
		fmt.Fprintf(w, "\npossibly missing, since values name it and nothing uses it (renderWith: or ref: brings it, ignoreImages: says that it is not needed), %s:\n", count(len(d.Unused), "image"))
		for i := range d.Unused {
			u := &d.Unused[i]
			fmt.Fprintf(w, "  %s\n    %s of chart %s, release %s%s\n", u.Reference, u.Path, u.Chart, u.Release, switches(u.Switch))
		}
	}
}

func switches(paths []string) string {
	if len(paths) == 0 {
		return ""
	}
	return "; switched on by " + strings.Join(paths, " or ")
}

// reason says why an image is in, for people.
func reason(r *manifest.Reason) string {
	if r.Kind == manifest.ReasonSpec {
		return "the spec names it"
	}
	s := fmt.Sprintf("%s %s in chart %s", r.Object, r.Path, r.Chart)
	var notes []string
	if r.Way != "" {
		notes = append(notes, r.Way)
	}
	if r.Confidence != "" {
		notes = append(notes, r.Confidence)
	}
	if r.Pattern != "" {
		notes = append(notes, "included by "+r.Pattern)
	}
	if r.Variant != "" {
		notes = append(notes, "with "+r.Variant)
	}
	if len(notes) > 0 {
		s += " (" + strings.Join(notes, ", ") + ")"
	}
	return s
}
