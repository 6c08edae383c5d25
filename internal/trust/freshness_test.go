package trust_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/sigstore/sigtest"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
)

// today is the local clock of the tests, unless they say otherwise.
var today = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// days is so many days after today.
func days(n int) string { return at(today.AddDate(0, 0, n)) }

// accepted is what a site has accepted of shop, as digest 1.
func accepted(version string, change ...func(*site.Accepted)) site.Accepted {
	a := site.Accepted{
		Name: "shop", Channel: "stable", Version: version, Digest: rootDigest('1'), Created: days(-20), At: days(-10),
	}
	for _, f := range change {
		f(&a)
	}
	return a
}

func record(floor string, all ...site.Accepted) *site.Record {
	r := &site.Record{ClockFloor: floor}
	for _, a := range all {
		r.Accept(a)
	}
	return r
}

// freshCase is one bundle, of digest 2 unless it says otherwise, at one site.
type freshCase struct {
	name string
	// rule is what stands in the rule besides its groups, revoked at the end of the policy.
	rule, revoked              string
	record                     *site.Record
	version, channel           string
	created, expires           string
	digest                     byte
	now                        time.Time
	allowDowngrade, allowOld   bool
	kind, text                 string
	overridden, warnings, seen string
}

func (c *freshCase) manifest() *manifest.Manifest {
	m := &manifest.Manifest{Name: "shop", Version: c.version, Channel: c.channel, Created: c.created, Expires: c.expires}
	if m.Version == "" {
		m.Version = "2.0.0"
	}
	if m.Channel == "" {
		m.Channel = "stable"
	}
	if m.Created == "" {
		m.Created = days(-5)
	}
	return m
}

// TestFreshness: each case is refused with both flags off, and says what the flags would override.
func TestFreshness(t *testing.T) {
	known := func(a site.Accepted) func(*site.Record) *site.Record {
		return func(r *site.Record) *site.Record { r.Remember(a); return r }
	}
	digest2 := func(a *site.Accepted) { a.Digest = rootDigest('2') }
	since := " on " + days(-10)
	older := func(have string) string {
		return "this site has accepted version " + have + since + ", which is newer"
	}
	const changed = "ALARM: this site has accepted version 2.0.0 with another content: got "
	neither := func(have string) string {
		return "this site has accepted version " + have + ", and neither of the two is the newer one"
	}
	for _, c := range []freshCase{
		{name: "no record"},
		{name: "empty record", record: &site.Record{}},
		{name: "newer", record: record("", accepted("1.9.9"))},
		{name: "the same bundle", record: record("", accepted("2.0.0")), digest: '1', seen: "yes"},
		{name: "older", record: record("", accepted("2.0.1")), kind: trust.Older, text: older("2.0.1")},
		{name: "older by number, not by text", record: record("", accepted("10.0.0")), version: "9.0.0", kind: trust.Older, text: older("10.0.0")},
		{name: "newer by number, not by text", record: record("", accepted("9.0.0")), version: "10.0.0"},
		{name: "older, allowed", record: record("", accepted("2.0.1")), allowDowngrade: true, overridden: older("2.0.1")},
		{name: "older, the other flag", record: record("", accepted("2.0.1")), allowOld: true, kind: trust.Older, text: older("2.0.1")},
		{
			name: "older, known", record: known(accepted("2.0.0", digest2))(record("", accepted("2.0.1"))),
			kind: trust.Older, text: older("2.0.1"),
		},
		{
			name: "older, known, allowed", record: known(accepted("2.0.0", digest2))(record("", accepted("2.0.1"))),
			allowDowngrade: true, overridden: older("2.0.1"), seen: "yes",
		},
		{name: "another content", record: record("", accepted("2.0.0")), kind: trust.Changed, text: changed + rootDigest('2') + ", had " + rootDigest('1')},
		{
			name: "another content, allowed", record: record("", accepted("2.0.0")), allowDowngrade: true,
			overridden: changed + rootDigest('2') + ", had " + rootDigest('1'),
		},
		{name: "other build of the version", record: record("", accepted("2.0.0+a")), version: "2.0.0+b", kind: trust.Older, text: neither("2.0.0+a")},
		{name: "without its build", record: record("", accepted("2.0.0+a")), kind: trust.Older, text: neither("2.0.0+a")},
		{name: "other build, allowed", record: record("", accepted("2.0.0+a")), version: "2.0.0+b", allowDowngrade: true, overridden: neither("2.0.0+a")},
		{name: "prerelease of what is there", record: record("", accepted("2.0.0")), version: "2.0.0-rc.9", kind: trust.Older, text: older("2.0.0")},
		{name: "release after its prerelease", record: record("", accepted("2.0.0-rc.9"))},
		{name: "prerelease by number", record: record("", accepted("2.0.0-rc.10")), version: "2.0.0-rc.9", kind: trust.Older, text: older("2.0.0-rc.10")},
		{
			name: "another channel", record: record("", accepted("9.0.0", func(a *site.Accepted) { a.Channel = "beta" })),
			warnings: `this site follows the channel "beta" of shop, at version 9.0.0; what comes by the channel "stable" is not compared with that`,
		},
		{
			name:   "each channel by itself",
			record: record("", accepted("1.0.0"), accepted("9.0.0", func(a *site.Accepted) { a.Channel, a.Digest = "beta", rootDigest('3') })), version: "1.5.0",
		},
		{name: "another bundle", record: record("", accepted("9.0.0", func(a *site.Accepted) { a.Name = "shop-web" }))},

		{name: "not expired yet", record: record(""), expires: at(today.Add(time.Second))},
		{name: "expired now", record: record(""), expires: days(0), kind: trust.Expired, text: "expired on " + days(0)},
		{name: "expired", expires: days(-1), kind: trust.Expired, text: "expired on " + days(-1)},
		{name: "unreadable end", expires: "never", kind: trust.Expired, text: "expired on never"},
		{name: "expired, allowed", record: record(""), expires: days(-1), allowOld: true, overridden: "expired on " + days(-1)},
		{name: "expired, the other flag", record: record(""), expires: days(-1), allowDowngrade: true, kind: trust.Expired, text: "expired on " + days(-1)},
		{
			name: "expired, accepted before", record: record("", accepted("2.0.0")), digest: '1', expires: days(-1), seen: "yes",
			warnings: "expired on " + days(-1) + "; this site has accepted it before",
		},
		{
			name: "expired, older, both allowed", record: record("", accepted("2.0.1")), expires: days(-1), allowOld: true, allowDowngrade: true,
			overridden: older("2.0.1") + "|expired on " + days(-1),
		},
		{name: "expired and older, one allowed", record: record("", accepted("2.0.1")), expires: days(-1), allowDowngrade: true, kind: trust.Expired, text: "expired on " + days(-1)},

		{name: "as old as may be", rule: "maximumAge: 5d"},
		{
			name: "too old", rule: "maximumAge: 119h", kind: trust.TooOld,
			text: "made on " + days(-5) + `, which is longer ago than the 119h0m0s that rule "shop" allows`,
		},
		{name: "too old, in days", rule: "maximumAge: 4d", kind: trust.TooOld, text: "made on " + days(-5) + `, which is longer ago than the 4 days that rule "shop" allows`},
		{name: "too old, allowed", rule: "maximumAge: 1d", allowOld: true, overridden: "made on " + days(-5) + `, which is longer ago than the 1 day that rule "shop" allows`},
		{name: "too old, accepted before", rule: "maximumAge: 1d", record: record("", accepted("2.0.0")), digest: '1', seen: "yes"},
		{
			name: "age unknown", rule: "maximumAge: 1d", created: "yesterday", kind: trust.TooOld,
			text: `made on yesterday, which is longer ago than the 1 day that rule "shop" allows`,
		},
		{
			name: "too old and expired", rule: "maximumAge: 1d", expires: days(-1), allowOld: true,
			overridden: "expired on " + days(-1) + "|made on " + days(-5) + `, which is longer ago than the 1 day that rule "shop" allows`,
		},

		{name: "the oldest version", rule: "oldestVersion: 2.0.0"},
		{name: "a build of the oldest version", rule: "oldestVersion: 2.0.0", version: "2.0.0+a"},
		{
			name: "before the oldest version", rule: "oldestVersion: 2.0.0", version: "2.0.0-rc.1", allowDowngrade: true, allowOld: true, kind: trust.TooOld,
			text: `version 2.0.0-rc.1 is older than 2.0.0, the oldest that rule "shop" allows`,
		},
		{
			name: "before the oldest version, accepted before", rule: "oldestVersion: 2.0.1", record: record("", accepted("2.0.0")), digest: '1', kind: trust.TooOld,
			text: `version 2.0.0 is older than 2.0.1, the oldest that rule "shop" allows`,
		},

		// The clock.
		{name: "clock a little behind", record: record(at(today.Add(24 * time.Hour)))},
		{
			name: "clock set back", record: record(days(2)), now: today,
			warnings: "the clock of this machine says " + days(0) + ", but it is known to be later than " + days(2) + ", and that counts",
		},
		{
			name: "clock set back, expired", record: record(days(2)), expires: days(1), kind: trust.Expired, text: "expired on " + days(1),
		},
		{name: "clock a little behind, expired", record: record(at(today.Add(time.Hour))), expires: at(today.Add(time.Minute)), kind: trust.Expired, text: "expired on " + at(today.Add(time.Minute))},
		{name: "clock set back, too old", rule: "maximumAge: 6d", record: record(days(2)), kind: trust.TooOld, text: "made on " + days(-5) + `, which is longer ago than the 6 days that rule "shop" allows`},
		{name: "clock set back, without a record", now: today.AddDate(-20, 0, 0), expires: days(1), warnings: "it says that it was made on " + days(-5) + ", which has not come yet by the clock of this machine"},
		{name: "clock after the floor", record: record(days(-30)), expires: days(1)},
		{name: "made tomorrow", created: days(1)},
		{name: "made in the future", created: days(2), warnings: "it says that it was made on " + days(2) + ", which has not come yet by the clock of this machine"},
		{name: "made in the future, by the floor it is not", created: days(2), record: record(days(1))},

		// What the site has revoked.
		{
			name: "revoked digest", revoked: "digests: [" + rootDigest('2') + "]", allowDowngrade: true, allowOld: true, kind: trust.IsRevoked,
			text: "digest " + rootDigest('2') + " is revoked by the site's policy",
		},
		{
			name: "revoked digest, accepted before", revoked: "digests: [" + rootDigest('1') + "]", record: record("", accepted("2.0.0")), digest: '1',
			allowDowngrade: true, allowOld: true, kind: trust.IsRevoked, text: "digest " + rootDigest('1') + " is revoked by the site's policy",
		},
		{
			name: "revoked version", revoked: "versions: [{name: shop, versions: [2.0.0]}]", allowDowngrade: true, allowOld: true, kind: trust.IsRevoked,
			text: `version 2.0.0 of "shop" in channel "stable" is revoked by the site's policy`,
		},
		{
			name: "build of a revoked version", revoked: "versions: [{name: shop, versions: [2.0.0]}]", version: "2.0.0+b", kind: trust.IsRevoked,
			text: `version 2.0.0+b of "shop" in channel "stable" is revoked by the site's policy`,
		},
		{name: "revoked build, another one", revoked: "versions: [{name: shop, versions: [2.0.0+a]}]", version: "2.0.0+b"},
		{name: "revoked version of another channel", revoked: "versions: [{name: shop, channel: beta, versions: [2.0.0]}]"},
		{name: "revoked version of another bundle", revoked: "versions: [{name: shop-web, versions: [2.0.0]}]"},
		{name: "prerelease of a revoked version", revoked: "versions: [{name: shop, versions: [2.0.0]}]", version: "2.0.0-rc.1"},
		{
			name: "revoked and older", revoked: "versions: [{name: shop, versions: [2.0.0]}]", record: record("", accepted("2.0.1")), kind: trust.IsRevoked,
			text: `version 2.0.0 of "shop" in channel "stable" is revoked by the site's policy`,
		},
	} {
		t.Run(c.name, func(t *testing.T) { c.check(t) })
	}
}

func (c *freshCase) check(t *testing.T) {
	text := fillPolicy(policyBase, "")
	if c.rule != "" {
		text = edit(t, text, "    groups:", "    "+c.rule+"\n    groups:")
	}
	if c.revoked != "" {
		text += "revoked: {" + c.revoked + "}\n"
	}
	p := mustPolicy(t, text)
	d := &trust.Decision{Rule: p.Rules()[0]}
	digest := rootDigest('2')
	if c.digest != 0 {
		digest = rootDigest(c.digest)
	}
	f := trust.Freshness{Record: c.record, Now: c.now, AllowDowngrade: c.allowDowngrade, AllowExpired: c.allowOld}
	if f.Now.IsZero() {
		f.Now = today
	}
	m := c.manifest()
	v, err := d.Judge(p, nil, m, digest, f)
	checkVerdict(t, v, err, m, c)
}

func checkVerdict(t *testing.T, v *trust.Verdict, err error, m *manifest.Manifest, c *freshCase) {
	t.Helper()
	if c.kind != "" {
		var e *trust.StaleError
		want := "bundle shop " + m.Version + ": " + c.text
		if !errors.As(err, &e) || v != nil || e.Kind != c.kind || err.Error() != want {
			t.Errorf("got  %v, %v\nwant %s, %s", v, err, c.kind, want)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	var overridden []string
	for _, o := range v.Overridden {
		overridden = append(overridden, o.Text)
	}
	if got := strings.Join(overridden, "|"); got != c.overridden {
		t.Errorf("overridden: got %q, want %q", got, c.overridden)
	}
	if got := strings.Join(v.Warnings, "|"); got != c.warnings {
		t.Errorf("warnings: got %q, want %q", got, c.warnings)
	}
	if v.Accepted != (c.seen != "") {
		t.Errorf("accepted before: got %v", v.Accepted)
	}
}

// TestFreshnessByRoots: a vendor's root takes bundles back, expires, and resets what was accepted.
func TestFreshnessByRoots(t *testing.T) {
	v := newVendor(t)
	stolen := v.release
	first := signRoot(t, v.first, v.a, v.b)
	thief := newRootSigner(t)
	second := signRoot(t, nextRoot(t, v.first, trust.RootChange{
		ReleaseKeys: rootPublic(thief), Reset: []string{"shop"}, RevokeDigests: []string{rootDigest('9')},
		RevokeVersions: []trust.RevokedVersions{{Name: "shop", Versions: []string{"6.6.6"}}},
	}), v.a, v.b)
	third := signRoot(t, nextRoot(t, &second.Root, trust.RootChange{Expires: rootEnds.AddDate(1, 0, 0)}), v.a, v.b)
	chain := []*trust.SignedRoot{first, second, third}

	p := mustPolicy(t, fillPolicy(edit(t, policyBase, "      - {name: office, threshold: 1, signers: [office]}", "      - {root: acme}", "  office: {key: @2@}\n", ""), ""))
	// under says that the root's group has signed; a decision without signatures has no groups.
	under := func() *trust.Decision {
		return &trust.Decision{Rule: p.Rules()[0], Groups: []trust.Signatories{{Group: "vendor", Threshold: 1}, {Group: "group-2", Root: "acme", RootVersion: 3}}}
	}
	by := func(name string, version int) func(*site.Accepted) {
		return func(a *site.Accepted) { a.Root = &site.RootRef{Name: name, Version: version} }
	}
	digest3 := func(a *site.Accepted) { a.Digest = rootDigest('3') }
	older := "this site has accepted version 6.6.6 on " + days(-10) + ", which is newer"
	reset := `the root "acme" has reset what this site accepted of shop: version 6.6.6 counts no more`
	stale := rootEnds.AddDate(1, 0, 1)
	expired := `root 3 of "acme" has expired on ` + at(rootEnds.AddDate(1, 0, 0)) + ", and no newer one is at hand"
	for _, c := range []struct {
		freshCase
		decision *trust.Decision
		chains   []*trust.SignedRoot
	}{
		{freshCase{name: "good"}, under(), chain},
		{freshCase{name: "revoked digest", digest: '9', allowDowngrade: true, allowOld: true, kind: trust.IsRevoked, text: "digest " + rootDigest('9') + ` is revoked by root 3 of "acme"`}, under(), chain},
		{freshCase{name: "revoked digest, by the root at hand", digest: '9'}, under(), chain[:1]},
		{freshCase{
			name: "revoked version, accepted before", version: "6.6.6", digest: '3', record: record("", accepted("6.6.6", digest3)), kind: trust.IsRevoked,
			text: `version 6.6.6 of "shop" in channel "stable" is revoked by root 3 of "acme"`,
		}, under(), chain},
		{freshCase{
			name: "revoked version of the first root", version: "1.0.0", kind: trust.IsRevoked,
			text: `version 1.0.0 of "shop" in channel "stable" is revoked by root 3 of "acme"`,
		}, under(), chain},
		// Who skips signatures does not get what was taken back, either.
		{freshCase{
			name: "revoked version, unsigned", version: "6.6.6", allowDowngrade: true, allowOld: true, kind: trust.IsRevoked,
			text: `version 6.6.6 of "shop" in channel "stable" is revoked by root 3 of "acme"`,
		}, &trust.Decision{Rule: p.Rules()[0]}, chain},

		{freshCase{name: "reset", record: record("", accepted("6.6.6", by("acme", 1))), warnings: reset}, under(), chain},
		{freshCase{name: "not reset yet", record: record("", accepted("6.6.6", by("acme", 1))), kind: trust.Older, text: older}, under(), chain[:1]},
		{freshCase{name: "accepted under the reset", record: record("", accepted("6.6.6", by("acme", 2))), kind: trust.Older, text: older}, under(), chain},
		{freshCase{name: "accepted under a later root", record: record("", accepted("6.6.6", by("acme", 3))), kind: trust.Older, text: older}, under(), chain},
		{freshCase{name: "accepted under another root", record: record("", accepted("6.6.6", by("bolt", 1))), kind: trust.Older, text: older}, under(), chain},
		{freshCase{name: "accepted under no root", record: record("", accepted("6.6.6")), kind: trust.Older, text: older}, under(), chain},
		{freshCase{name: "not signed under the root that resets", record: record("", accepted("6.6.6", by("acme", 1))), kind: trust.Older, text: older}, &trust.Decision{Rule: p.Rules()[0]}, chain},
		{freshCase{name: "reset, of the same version", version: "6.6.5", record: record("", accepted("6.6.5", by("acme", 1))), warnings: strings.ReplaceAll(reset, "6.6.6", "6.6.5")}, under(), chain},

		{freshCase{name: "root that has expired since", now: rootEnds.AddDate(0, 0, 1)}, under(), chain},
		{freshCase{name: "last root expired", now: stale, kind: trust.Expired, text: expired}, under(), chain},
		{freshCase{name: "last root expired, allowed", now: stale, allowOld: true, overridden: expired}, under(), chain},
		{freshCase{name: "last root expired, accepted before", now: stale, digest: '3', record: record("", accepted("2.0.0", digest3)), seen: "yes", warnings: expired}, under(), chain},
		{freshCase{name: "last root expired, clock set back", record: record(at(stale)), kind: trust.Expired, text: expired}, under(), chain},
	} {
		t.Run(c.name, func(t *testing.T) {
			digest := rootDigest('2')
			if c.digest != 0 {
				digest = rootDigest(c.digest)
			}
			now := c.now
			if now.IsZero() {
				now = today
			}
			m := c.manifest()
			verdict, err := c.decision.Judge(p, map[string][]*trust.SignedRoot{"acme": c.chains}, m, digest,
				trust.Freshness{Record: c.record, Now: now, AllowDowngrade: c.allowDowngrade, AllowExpired: c.allowOld})
			checkVerdict(t, verdict, err, m, &c.freshCase)
		})
	}
	// What the thief signs does not count any more.
	body := (&sigtest.Virtual{}).SignBlobWithKey(t, stolen.key, signedMessage, sigtest.Options{})
	roots := trust.Roots{"acme": third}
	if proven := prove(t, p, roots, body); len(proven.Signed) > 0 {
		t.Errorf("got %+v", proven)
	}
}

// TestFreshnessNeverGoesBack walks through random bundles: what is accepted without a flag is newer
// than, or the same as, all of its channel that were accepted before.
func TestFreshnessNeverGoesBack(t *testing.T) {
	p := mustPolicy(t, fillPolicy(policyBase, ""))
	d := &trust.Decision{Rule: p.Rules()[0]}
	versions := []string{"1.0.0-a", "1.0.0-a.1", "1.0.0-10", "1.0.0-9", "1.0.0", "1.0.0+b", "1.0.1", "1.10.0", "1.9.0", "2.0.0-rc.1", "2.0.0"}
	r := &site.Record{}
	for round := range 3 {
		for i := range versions {
			version := versions[(i*7+round*5)%len(versions)]
			digest := fmt.Sprintf("sha256:%063d%d", i, round)
			before := r.Find("shop", "stable")
			c := freshCase{version: version}
			_, err := d.Judge(p, nil, c.manifest(), digest, trust.Freshness{Record: r, Now: today})
			newer := before == nil || manifest.CompareVersions(version, before.Version) > 0
			if (err == nil) != newer {
				t.Fatalf("%s after %v: got %v", version, before, err)
			}
			if err == nil {
				r.Accept(site.Accepted{Name: "shop", Channel: "stable", Version: version, Digest: digest})
			}
		}
	}
	if have := r.Find("shop", "stable"); have == nil || have.Version != "2.0.0" || !slices.ContainsFunc(r.Known, func(a site.Accepted) bool { return a.Version == "2.0.0" }) {
		t.Errorf("got %+v", r)
	}
}

// TestProvenTimesCount: a clock that is behind does not make a bundle fresh whose signature is proven
// to be from after its end.
func TestProvenTimesCount(t *testing.T) {
	d := &trust.Decision{Rule: &trust.Rule{}}
	m := &manifest.Manifest{Name: "shop", Version: "1.0.0", Channel: "stable", Created: days(-1), Expires: days(1)}
	f := trust.Freshness{Now: today}
	if _, err := d.Judge(&trust.Policy{}, nil, m, rootDigest('1'), f); err != nil {
		t.Fatal(err)
	}
	f.Proven = []time.Time{today.AddDate(0, 0, 2)}
	_, err := d.Judge(&trust.Policy{}, nil, m, rootDigest('1'), f)
	var stale *trust.StaleError
	if !errors.As(err, &stale) || stale.Kind != trust.Expired {
		t.Fatal(err)
	}
}
