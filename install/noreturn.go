package install

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/manifest"
)

// noReturn finds the reasons for which nothing leads back once a release was begun, beside what definitions say. A first
// install has none: it is uninstalled again, and data stays.
func (c *comparison) noReturn() error {
	p := c.plan
	if p.Action != release.ActionUpgrade {
		return nil
	}
	word := ""
	if p.spec != nil {
		word = p.spec.Rollback
	}
	switch word {
	case manifest.RollbackForbidden:
		p.NoReturn = append(p.NoReturn, "the vendor says that there is no way back from this version")
	case manifest.RollbackManual:
		p.NoReturn = append(p.NoReturn, "the vendor says that something has to be done by hand before a way back, which its notes tell")
	case manifest.RollbackSafe:
	default:
		hooks, err := chart.Hooks(p.parts.docs)
		if err != nil {
			return err
		}
		for i := range hooks {
			if h := &hooks[i]; h.Runs("pre-upgrade", "post-upgrade") {
				p.NoReturn = append(p.NoReturn, fmt.Sprintf("the hook %s runs, and the vendor does not say that what it does can be undone", h.Object))
			}
		}
	}
	return c.data()
}

// data is about what is lost, or only seems so.
func (c *comparison) data() error {
	p := c.plan
	for i := range c.gone {
		switch l := &c.gone[i]; {
		case l.Live == nil:
		case holdsData(l.Kind) && !l.Kept:
			p.Notes = append(p.Notes, fmt.Sprintf("%s is not in this version any more; it stays in the cluster", l.Object))
		case l.Kind == "StatefulSet" && retention(l.Live).WhenDeleted == deleteClaims:
			p.NoReturn = append(p.NoReturn, fmt.Sprintf("%s goes, and says that its claims are deleted with it", l.Object))
		}
	}
	for i := range c.live {
		l := &c.live[i]
		if l.Kind != "StatefulSet" || l.Live == nil {
			continue
		}
		// What an apply leaves alone stays as it is.
		will := l.Applied
		if will == nil {
			will = l.Wanted
		}
		if now := pods(will); now < l.Pods && retention(will).WhenScaled == deleteClaims {
			p.NoReturn = append(p.NoReturn, fmt.Sprintf("%s is scaled from %d to %d, and says that the claims of pods that go are deleted", l.Object, l.Pods, now))
		}
	}
	p.NoReturn = slices.Compact(p.NoReturn)
	return nil
}

// deleteClaims is the policy of a StatefulSet that deletes claims.
const deleteClaims = "Delete"

// claimRetention is what a StatefulSet says about the claims that it made.
type claimRetention struct {
	WhenDeleted string `json:"whenDeleted"`
	WhenScaled  string `json:"whenScaled"`
}

// retention reads it; what has no claims of its own says nothing.
func retention(object []byte) claimRetention {
	var o struct {
		Spec struct {
			Claims    []json.RawMessage `json:"volumeClaimTemplates"`
			Retention claimRetention    `json:"persistentVolumeClaimRetentionPolicy"`
		} `json:"spec"`
	}
	if json.Unmarshal(object, &o) != nil || len(o.Spec.Claims) == 0 {
		return claimRetention{}
	}
	return o.Spec.Retention
}
