package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/manifest"
)

// headError says that the journal does not lead to a head that was kept elsewhere.
type headError struct{ digest string }

func (e *headError) Error() string {
	return fmt.Sprintf("the journal has no entry %s: it is not the one whose end that was", e.digest)
}

func (a *app) journalCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "journal",
		Short: "Show or prove what happened at this site",
		Long: `Every acceptance of a bundle, every change of what the site trusts, and every flag that
weakened it is an entry of the journal. Each entry holds the digest of the one before, so that
the last digest stands for all of them: keep it elsewhere, and nobody can rewrite what was.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var state, head string
	show := &cobra.Command{
		Use:   "show",
		Short: "Print the journal, proving its chain",
		Long:  "Print the journal, proving its chain. With --output json, one entry a line.",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.journalShow(cmd, state) },
	}
	stateFlag(show, &state)
	prove := &cobra.Command{
		Use:   "verify",
		Short: "Prove the chain of the journal",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.journalVerify(cmd, state, head) },
	}
	prove.Flags().StringVar(&head, "head", "", "digest of an entry that was kept elsewhere, which must be on the chain")
	stateFlag(prove, &state)
	c.AddCommand(show, prove)
	for _, s := range c.Commands() {
		wrapArgs(s)
	}
	return c
}

func (a *app) journalShow(cmd *cobra.Command, state string) error {
	dir, err := a.siteDir(state)
	if err != nil {
		return err
	}
	end, err := dir.Journal(cmd.Context(), func(e site.Entry) error {
		if a.output == "json" {
			line, err := json.Marshal(e)
			if err != nil {
				return fmt.Errorf("printing the journal: %w", err)
			}
			_, err = fmt.Fprintln(a.env.Stdout, string(line))
			return err
		}
		_, err := io.WriteString(a.env.Stdout, printable(entryText(e)))
		return err
	})
	if err == nil && end.Seq == 0 {
		return &noJournalError{dir.Path()}
	}
	return err
}

// noJournalError says that there is no record: most likely, another directory is meant.
type noJournalError struct{ dir string }

func (e *noJournalError) Error() string { return fmt.Sprintf("there is no journal in %q", e.dir) }

func entryText(e site.Entry) string {
	// A line break in a reason must not look like another entry.
	line := func(s string) string { return strings.NewReplacer("\n", "\\n", "\r", "\\r").Replace(s) }
	var b strings.Builder
	fmt.Fprintf(&b, "%d  %s  %s", e.Seq, e.Time, e.Kind)
	if e.Bundle != "" {
		fmt.Fprintf(&b, "  %s %s (%s)", e.Bundle, e.Version, e.Channel)
	}
	b.WriteString("\n")
	if e.Digest != "" {
		fmt.Fprintf(&b, "     %s\n", e.Digest)
	}
	if e.Reason != "" {
		fmt.Fprintf(&b, "     reason: %s\n", line(e.Reason))
	}
	for _, k := range slices.Sorted(maps.Keys(e.Detail)) {
		fmt.Fprintf(&b, "     %s: %s\n", line(k), line(e.Detail[k]))
	}
	return b.String()
}

func (a *app) journalVerify(cmd *cobra.Command, state, head string) error {
	if head = asDigest(head); head != "" {
		if err := manifest.CheckDigest(head); err != nil {
			return &usageError{fmt.Errorf("--head: %w", err), cmd.CommandPath()}
		}
	}
	dir, err := a.siteDir(state)
	if err != nil {
		return err
	}
	end, found, err := dir.FindHead(cmd.Context(), site.Head{Digest: head})
	if err != nil {
		return err
	}
	if !found {
		return &headError{head}
	}
	if end.Seq == 0 {
		return &noJournalError{dir.Path()}
	}
	result := struct {
		Entries int64  `json:"entries"`
		Head    string `json:"head"`
		Holds   bool   `json:"holds"`
	}{end.Seq, end.Digest, true}
	return a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "the chain holds: %d entries\n", end.Seq)
		fmt.Fprintf(w, "  head  %s\n", end.Digest)
		if head != "" {
			fmt.Fprintf(w, "  %s is on it\n", head)
		}
	})
}
