package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/verify"
)

// servedNamesHelp says what images are called that are served out of bundles.
const servedNamesHelp = `An image that was called
docker.io/library/nginx:1 is there under that whole name, as library/nginx:1 and as nginx:1,
and for containerd's mirrors; charts are charts/NAME:VERSION. Nothing can be written. The
site's record stays as it is.`

// servedBundle is a bundle that is served.
type servedBundle struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Path    string `json:"path"`
	Digest  string `json:"digest"`
}

// examplesShown is how many names are printed that can be pulled.
const examplesShown = 3

// serveBundles is 'serve BUNDLE...'.
func (a *app) serveBundles(cmd *cobra.Command, args []string, f *serveFlags) (err error) {
	stream, err := isStream(cmd, args)
	if err == nil && stream {
		err = &usageError{errors.New("what is served is read anywhere and again and again, so it must be a file: save the stream first"), cmd.CommandPath()}
	}
	if err != nil {
		return err
	}
	t, err := a.trusting(cmd, &f.trust)
	if err != nil {
		return err
	}
	bundles, done, err := a.openAll(cmd, args, t.policy, verify.Open)
	if err != nil {
		return err
	}
	served, err := registry.NewBundles(bundles, registry.BundlesOptions{Failed: a.notServed, Reopen: a.reopening(cmd, args, t.policy)})
	if err != nil {
		done(&err)
		return err
	}
	defer func() { err = errors.Join(err, served.Close()) }()
	a.warn(bundles)
	if err := a.keepReason(cmd.Context(), t, "serve", bundles); err != nil {
		return err
	}
	s := serving{handler: served, readOnly: true, health: served.Health, count: served.Count}
	if dir := a.stateDir(f.trust.state); dir != "" {
		s.tls = filepath.Join(dir, "serve", "tls")
	}
	var names []string
	for _, b := range bundles {
		m := b.Manifest()
		s.bundles = append(s.bundles, servedBundle{m.Name, m.Version, b.Path(), b.Evidence().Manifest})
		names = append(names, fmt.Sprintf("%s (%s)", title(m), printable(b.Path())))
	}
	s.name = strings.Join(names, ", ")
	shown := map[string]bool{}
	for _, n := range served.Names() {
		if len(s.examples) < examplesShown && !shown[n.Digest] {
			shown[n.Digest] = true
			s.examples = append(s.examples, n.Repository+":"+n.Tag)
		}
	}
	return f.run(a, cmd, s)
}

// writeExamples prints names that can be pulled.
func writeExamples(w io.Writer, names []string) {
	for i, n := range names {
		label := "for example"
		if i > 0 {
			label = ""
		}
		fmt.Fprintf(w, "%-11s  %s\n", label, n)
	}
}

// reopening opens a bundle that args name once more, when it cannot be read any more: its medium may
// have been away, and be back.
func (a *app) reopening(cmd *cobra.Command, args []string, p verify.Policy) func(*verify.Bundle) (*verify.Bundle, error) {
	var mu sync.Mutex
	return func(old *verify.Bundle) (*verify.Bundle, error) {
		mu.Lock()
		defer mu.Unlock()
		found, err := a.find(cmd, args)
		if err != nil {
			// The media of others may still be away.
			found = nil
			for _, arg := range args {
				if some, e := a.find(cmd, []string{arg}); e == nil {
					found = append(found, some...)
				}
			}
		}
		for _, f := range found {
			if f.Name == old.Path() {
				// Who signed it is known by now, and whether it is the same its manifest says.
				return verify.Open(cmd.Context(), f, withRoots(p, found))
			}
		}
		return nil, err
	}
}

// withRoots is the policy with the roots that the bundles bring along, as openAll has it.
func withRoots(p verify.Policy, found []*verify.Files) verify.Policy {
	p.More = slices.Clone(p.More)
	if len(found) > 1 && p.Site != nil && len(p.Site.Roots()) > 0 {
		for _, f := range found {
			p.More = append(p.More, verify.Roots(f)...)
		}
	}
	return p
}

// notServed says loudly what could not be given to a client.
func (a *app) notServed(f registry.Failure) {
	word, end := "CANNOT BE READ", "it was refused"
	if f.Damaged {
		word = "DAMAGED"
	}
	if f.Cut {
		end = "the answer was broken off"
	}
	fmt.Fprintf(a.env.Stderr, "%s: %s asked for by a client, %s: %s\n", word, f.Digest, end, printable(a.hide(f.Err.Error())))
}

func hintServeBundles(err error) string {
	if is[*registry.ConflictError](err) {
		return "serve each of them at an address of its own (--listen)"
	}
	return ""
}
