package cli

import (
	"strings"
	"testing"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
)

// wholePlan has something of everything that is printed.
func wholePlan() *install.Plan {
	return &install.Plan{
		Bundle: "shop", Version: "2.0.0", Replaces: "1.0.0", Cluster: "97b1a731", Kubernetes: "v1.36.3", Environment: "staging",
		Rendering:  &install.RenderingPlan{Pin: install.PinTag, NoRewrite: true, PullSecrets: []string{"pull"}, ConfigMaps: []string{"apps/conf"}},
		Parameters: []install.Said{{Name: "domain", Value: "a.example", Default: true}, {Name: "password", Secret: true}},
		Programs:   []string{"aws, for the credentials of user \"ops\" of the kubeconfig"},
		Seed: &install.SeedResult{
			Registry: "reg.example/shop", UploadedBlobs: 2, UploadedBytes: 3_000_000, MountedBlobs: 1, ExistingBlobs: 4, UploadedManifests: 1, Tags: 2,
			TagMoves: []install.TagMove{{Reference: "reg.example/shop/app:2", From: "sha256:aa", To: "sha256:bb"}},
		},
		Releases: []install.ReleasePlan{
			{
				Release: "shop", Namespace: "apps", Chart: "shop", Version: "2.0.0", Action: release.ActionUpgrade, Digest: "sha256:cc",
				From:  &release.State{Revision: 3, Chart: "shop", Version: "1.0.0"},
				Notes: []string{"PersistentVolumeClaim/apps/old is not in this version any more; it stays in the cluster"},
				Images: []install.ImagePlan{
					{Was: "reg.example/shop/app:1", Is: "reg.example/shop/app:2", Objects: []string{"Deployment/shop", "Job/migrate"}}, {Is: "reg.example/shop/new:1", Objects: []string{"Pod/new"}},
				},
				Definitions: []install.DefinitionPlan{
					{Name: "w.example.com", Action: chart.ObjectChanged, Added: []string{"v2"}, Removed: []string{"v0"}, StorageWas: "v1", Storage: "v2"},
				},
				Changes: []install.ObjectPlan{
					{
						ObjectChange: chart.ObjectChange{Action: chart.ObjectChanged, Object: "Deployment/apps/shop", More: 1, Fields: []chart.FieldChange{
							{Path: "spec.replicas", Old: "2", New: "3"},
							{Path: "spec.a", New: "1"},
							{Path: "spec.b", Old: chart.RandomValue, New: chart.RandomValue},
							{Path: "spec.c", Old: chart.SecretValue, New: chart.SecretValue},
							{Path: "spec.d", Old: chart.SecretValue},
						}},
						Against: install.AgainstLive,
					},
					{ObjectChange: chart.ObjectChange{Action: chart.ObjectChanged, Object: "Service/apps/shop"}, Against: install.AgainstRecorded, Why: "the cluster would refuse it, because of spec.clusterIP"},
					{ObjectChange: chart.ObjectChange{Action: chart.ObjectRemoved, Object: "PersistentVolumeClaim/apps/old"}, Against: install.AgainstLive, Stays: true},
				},
				MoreChanges: 2,
				Impact:      []install.ImpactPlan{{Object: "Deployment/apps/shop", Effect: install.EffectReplace, Pods: 2}},
				Hooks:       []string{"pre-upgrade Job/migrate"}, Backup: []string{"Job/save"}, Restore: []string{"Job/load"},
				Left: []chart.Left{{Why: chart.RandomValue}, {Why: chart.SecretValue}, {Why: chart.SecretValue}},
			},
			{Release: "db", Namespace: "apps", Chart: "db", Version: "1.0.0", Action: install.ActionLeave, From: &release.State{Revision: 1, Chart: "db", Version: "1.0.0"}},
		},
		Dropped: []install.DroppedRelease{{Release: "old", Namespace: "apps", Action: install.ActionKeep}, {Release: "gone", Namespace: "apps", Action: install.ActionRemove}},
		Mentions: []install.MentionPlan{
			{Release: "apps/shop", Object: "ConfigMap/c", Path: "data.a", Reference: "vendor.example"}, {Release: "apps/shop", Object: "Pod/new", Path: "spec.x", Reference: "vendor.example/x:1", Carried: true},
		},
		Steps: []install.PlannedStep{
			{Kind: ledger.StepCRDs, Release: "apps/shop", Do: "apply the definitions of its chart", Back: "apply the former definitions; new ones stay"},
			{Kind: ledger.StepRelease, Release: "apps/first", Do: "install first 1", Back: "uninstall; claims, volumes, namespaces and definitions stay", Hold: true},
			{Kind: ledger.StepCheck, Release: "apps/first", Do: "check \"web\""},
			{Kind: ledger.StepRelease, Release: "apps/shop", Do: "upgrade shop 2.0.0 over revision 3 (shop 1.0.0)", Back: "to revision 3 (shop 1.0.0)", Hold: true, NoReturn: []string{"the hook Job/migrate runs"}},
		},
	}
}

const wholePlanText = `plan: shop 2.0.0 over 1.0.0, nothing has been changed
  digest sha256:dd

registry reg.example/shop
  2 blobs to send (3.0 MB), 1 mounted, 4 there already; 1 manifest and 2 tags to store
  tag moves: reg.example/shop/app:2 from sha256:aa to sha256:bb

cluster 97b1a731, Kubernetes v1.36.3
environment staging
references are pinned by tag, and not rewritten; pull secrets pull; rewritten in ConfigMaps apps/conf

parameters
  domain = "a.example" (the vendor's default)
  password = (hidden)

foreign programs that are run
  aws, for the credentials of user "ops" of the kubeconfig

releases
  upgrade  apps/shop: shop 2.0.0, revision 3 is shop 1.0.0
  leave    apps/db: db 1.0.0, revision 1 is db 1.0.0
  keep     apps/old: is not in this version any more, and stays (--remove-dropped uninstalls it)
  remove   apps/gone: is not in this version any more, and is uninstalled; what holds data stays

release apps/shop
  objects sha256:cc
  note: PersistentVolumeClaim/apps/old is not in this version any more; it stays in the cluster
  images
    reg.example/shop/app:1 -> reg.example/shop/app:2 (Deployment/shop, Job/migrate)
    reg.example/shop/new:1 (Pod/new)
  custom resource definitions
    changed  w.example.com: versions v2 are new; versions v0 go; kept in v2 instead of v1
  objects of the cluster
    changed  Deployment/apps/shop
             spec.replicas: 2 -> 3
             spec.a: none -> 1
             spec.b: differs (random)
             spec.c: differs (secret)
             spec.d: (secret) -> none
             and 1 field more
    changed  Service/apps/shop (the cluster would refuse it, because of spec.clusterIP; compared with what was rendered before)
    removed  PersistentVolumeClaim/apps/old, and stays in the cluster
    and 2 objects more
  pods
    replace  Deployment/apps/shop: 2 pods
  hooks that run
    pre-upgrade Job/migrate
  backup, before it
    Job/save
  restore, on the way back
    Job/load
  left out: 1 field (random)
  left out: 2 fields (secret)

other registries that objects name
  vendor.example: data.a of ConfigMap/c in apps/shop
  vendor.example/x:1: spec.x of Pod/new in apps/shop, which the bundle has

steps
    1  crds     apps/shop: apply the definitions of its chart
    2  release  apps/first: install first 1
    3  check    apps/first: check "web"
    4  release  apps/shop: upgrade shop 2.0.0 over revision 3 (shop 1.0.0)
       point of no return: the hook Job/migrate runs
  --until RELEASE stops after one of apps/first, apps/shop

way back
  from step 4 on there is none: it stops and holds, and 'sealift resume' goes on; --accept-no-return is needed
  on failure by itself, or with 'sealift revert' while it is not finished:
    2  release  apps/first: uninstall; claims, volumes, namespaces and definitions stay
    1  crds     apps/shop: apply the former definitions; new ones stay
  afterwards: only as far as the vendor and the points of no return allow it
`

func TestWriteWholePlan(t *testing.T) {
	var b strings.Builder
	writeWholePlan(&b, wholePlan(), "sha256:dd")
	if got := b.String(); got != wholePlanText {
		t.Errorf("got\n%s\nwant\n%s", got, wholePlanText)
	}
	for name, c := range map[string]struct {
		change func(*install.Plan)
		want   string
	}{
		"no way back at all": {func(p *install.Plan) { p.Steps = p.Steps[3:] }, "there is none from the first step on"},
		"all can go back":    {func(p *install.Plan) { p.Steps[3].NoReturn = nil }, "afterwards: 'sealift rollback 1.0.0', by the same revisions\n"},
		"first install":      {func(p *install.Plan) { p.Steps[3].NoReturn, p.Replaces = nil, "" }, "afterwards: 'sealift uninstall shop'\n"},
		"no cluster":         {func(p *install.Plan) { p.Cluster = "" }, "cluster: none was named"},
	} {
		t.Run(name, func(t *testing.T) {
			p := wholePlan()
			c.change(p)
			var b strings.Builder
			writeWholePlan(&b, p, "sha256:dd")
			if !strings.Contains(b.String(), c.want) {
				t.Errorf("%q is not in\n%s", c.want, b.String())
			}
		})
	}
}
