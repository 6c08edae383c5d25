package cli

import (
	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
)

// revocations opens the site's record, and says which of the versions that were installed before are revoked by now, by their
// manifest's digest: by the site's policy, or by a root that it has pinned.
func (a *app) revocations(cmd *cobra.Command, f *trustFlags, state *ledger.State) (*site.Dir, func(manifest string) string, error) {
	dir, err := a.siteDir(f.state)
	if err != nil {
		return nil, nil, err
	}
	record, err := dir.Read(cmd.Context())
	if err != nil {
		return nil, nil, err
	}
	roots, err := install.PinnedRoots(dir, record)
	if err != nil {
		return nil, nil, err
	}
	var policy *trust.Policy
	if record.Policy != "" {
		if policy, err = pinnedPolicy(dir, record); err != nil {
			return nil, nil, err
		}
	}
	return dir, func(digest string) string {
		for _, r := range install.Receipts(state) {
			if r.Manifest != digest {
				continue
			}
			if policy != nil {
				if what, yes := policy.Revoked.Find(r.Bundle, r.Channel, r.Version, digest); yes {
					return what + " is revoked by the site's policy"
				}
			}
			for _, chain := range roots {
				if why, yes := chain[len(chain)-1].Root.IsRevoked(r.Bundle, r.Channel, r.Version, digest); yes {
					return why
				}
			}
		}
		return ""
	}, nil
}
