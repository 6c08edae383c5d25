package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/publish"
	"github.com/sealift/sealift/verify"
)

// bundleRegistry is what errors call a registry that bundles are read from.
const bundleRegistry = "bundle registry"

// reading is how commands read bundles in registries.
type reading struct {
	// access are the flags, by command.
	access map[*cobra.Command]*bundleAccess
	// clients are those that a command has already, by host.
	clients map[string]*oci.Client
	// found are the bundles, by what was named: a tag that is moved under a command leads it
	// nowhere else.
	found map[string]*verify.Files
}

func newReading() reading {
	return reading{map[*cobra.Command]*bundleAccess{}, map[string]*oci.Client{}, map[string]*verify.Files{}}
}

// bundleAccess are the flags by which a command reads bundles in registries.
type bundleAccess struct {
	accessFlags
	// shared are flags that the command has for another registry, and what they are here.
	shared map[*pflag.Flag]*pflag.Flag
}

// credentialFlags are for the registry that a command is about, and for no other.
var credentialFlags = []string{"username", "password-stdin", "password-file"}

// addRemoteFlags gives the flags by which registries are spoken to to every command whose help says
// that it reads bundles there. Those that it has for another registry count for both, but for
// credentials.
func (a *app) addRemoteFlags(c *cobra.Command) {
	for _, sub := range c.Commands() {
		a.addRemoteFlags(sub)
	}
	if !strings.Contains(c.Long, remoteHelp) {
		return
	}
	f := &bundleAccess{shared: map[*pflag.Flag]*pflag.Flag{}}
	var own cobra.Command
	f.add(&own)
	own.Flags().VisitAll(func(flag *pflag.Flag) {
		if theirs := c.Flags().Lookup(flag.Name); theirs == nil {
			c.Flags().AddFlag(flag)
		} else if !slices.Contains(credentialFlags, flag.Name) {
			f.shared[theirs] = flag
		}
	})
	a.reading.access[c] = f
}

// adopt takes over what was said to the command about both registries.
func (f *bundleAccess) adopt() error {
	for theirs, flag := range f.shared {
		var err error
		if list, ok := theirs.Value.(pflag.SliceValue); !ok {
			err = flag.Value.Set(theirs.Value.String())
		} else if own, ok := flag.Value.(pflag.SliceValue); ok {
			err = own.Replace(list.GetSlice())
		}
		if err != nil {
			return fmt.Errorf("--%s: %w", flag.Name, err)
		}
	}
	return nil
}

// clientFor returns a client for a registry that bundles are read from.
func (a *app) clientFor(cmd *cobra.Command, host string) (*oci.Client, error) {
	if c := a.reading.clients[host]; c != nil {
		return c, nil
	}
	f := a.reading.access[cmd]
	if f == nil {
		return nil, &usageError{errors.New("this reads no bundles from registries"), cmd.CommandPath()}
	}
	if err := f.adopt(); err != nil {
		return nil, &usageError{err, cmd.CommandPath()}
	}
	c, err := f.client(a, cmd, bundleRegistry, host)
	if err == nil {
		a.reading.clients[host] = c
	}
	return c, err
}

// remote finds the bundle in a registry that text names; nil where text is a path.
func (a *app) remote(cmd *cobra.Command, text string) (*verify.Files, error) {
	if !publish.IsReference(text) {
		return nil, nil
	}
	found := a.reading.found[text]
	if found == nil {
		ref, err := publish.ParseReference(text)
		if err == nil && ref.Identifier() == "" {
			err = &publish.NoTagError{Text: text}
		}
		if err != nil {
			return nil, &usageError{err, cmd.CommandPath()}
		}
		c, err := a.clientFor(cmd, ref.Registry)
		if err != nil {
			return nil, err
		}
		if found, err = publish.Open(cmd.Context(), c, ref); err != nil {
			return nil, err
		}
		a.reading.found[text] = found
	}
	one := *found // signatures in other places are added to it
	return &one, nil
}

// find returns the bundles that args name, on this machine and in registries.
func (a *app) find(cmd *cobra.Command, args []string) ([]*verify.Files, error) {
	return verify.FindWith(args, func(text string) (*verify.Files, error) { return a.remote(cmd, text) })
}

// onlyFiles refuses bundles in registries, for commands that change bundles, or write beside them.
func onlyFiles(args []string) error {
	for _, arg := range args {
		if publish.IsReference(arg) {
			return &archive.RemoteError{Name: arg}
		}
	}
	return nil
}

// unreachable reports whether a bundle could not be read for its registry's sake, and not because of
// what is in it.
func unreachable(err error) bool {
	var content *verify.ContentError
	return errors.As(err, &content) && is[*oci.Error](content.Err)
}

func hintRemote(err error) string {
	var content *verify.ContentError
	switch {
	case unreachable(err):
		return hintRegistry(err)
	case errors.As(err, &content) && publish.IsReference(content.Path):
		return "the registry gives something else than what was signed: read it past any cache, or have it pushed again; if that does not help, it was changed"
	case is[*archive.RemoteError](err):
		return "'sealift pull' brings it here as a file"
	case is[*publish.NotBundleError](err):
		return "check repository and tag; bundles get there with 'sealift push'"
	}
	return ""
}
