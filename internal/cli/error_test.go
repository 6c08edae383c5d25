package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/kustomize"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/parity"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// TestErrors: which code and which hint an error has, by its type and however it is wrapped.
func TestErrors(t *testing.T) {
	boom := errors.New("boom")
	refused := &oci.Error{Side: "target registry", Registry: "r", Doing: "x", Err: syscall.ECONNREFUSED}
	for name, c := range map[string]struct {
		err  error
		code int
		hint string // a part of it; empty: there is none
	}{
		"anything":             {boom, ExitFailure, ""},
		"usage":                {&usageError{boom, "sealift pack"}, ExitFailure, "sealift pack --help"},
		"no policy":            {verify.ErrNoPolicy, ExitFailure, "--key"},
		"not a bundle":         {&verify.ContentError{Path: "b", Err: archive.ErrNotBundle}, ExitNotBundle, "sealift pack"},
		"newer format":         {&verify.ContentError{Path: "b", Err: manifest.ErrUnknownFormat}, ExitNotBundle, "newer version"},
		"unsigned":             {&verify.UnsignedError{Path: "d/b"}, ExitUnsigned, "b.sigstore.json"},
		"untrusted":            {&verify.UntrustedError{Path: "b", Reasons: []error{sigstore.ErrSignature}}, ExitUntrusted, "do not use it"},
		"damaged":              {&verify.ContentError{Path: "b", Err: &archive.DamageError{}}, ExitContent, "copy the bundle again"},
		"cut":                  {&verify.ContentError{Path: "b", Err: &archive.SizeError{}}, ExitContent, "copy the bundle again"},
		"not canonical":        {&verify.ContentError{Path: "b", Err: manifest.ErrNotCanonical}, ExitContent, "no other copy helps"},
		"no rule":              {&verify.UntrustedError{Demand: &trust.RuleError{}}, ExitUntrusted, "trust show"},
		"group":                {&verify.UntrustedError{Demand: &trust.GroupError{}}, ExitUntrusted, "sealift sign"},
		"stranger to policy":   {&verify.UntrustedError{}, ExitUntrusted, "changed its keys"},
		"violation":            {&trust.ViolationError{}, ExitUntrusted, "trust update"},
		"forbidden":            {&ForbiddenError{Flag: "key"}, ExitUntrusted, "leave it out"},
		"tampered":             {&site.TamperedError{}, ExitUntrusted, "journal verify --head"},
		"older":                {&trust.StaleError{Kind: trust.Older}, ExitStale, "--allow-downgrade"},
		"changed":              {&trust.StaleError{Kind: trust.Changed}, ExitStale, "by another way"},
		"expired":              {&trust.StaleError{Kind: trust.Expired}, ExitStale, "--allow-expired"},
		"revoked":              {&trust.StaleError{Kind: trust.IsRevoked}, ExitStale, "the version that replaces it"},
		"meanwhile":            {&install.MeanwhileError{}, ExitStale, "run this again"},
		"root back":            {&trust.RootError{Err: trust.ErrRootBack}, ExitStale, "a newer root already"},
		"root gap":             {&trust.RootError{Err: trust.ErrRootGap}, ExitUntrusted, "versions in between"},
		"root signatures":      {&trust.RootError{Err: trust.ErrRootSignatures}, ExitUntrusted, "root show OLD NEW"},
		"equivocation":         {&trust.EquivocationError{}, ExitUntrusted, "ALARM"},
		"record busy":          {&site.BusyError{}, ExitFailure, "wait for the other sealift"},
		"no state":             {errNoState, ExitFailure, "--state"},
		"slot full":            {fmt.Errorf("x: %w", archive.ErrSlotFull), ExitFailure, "--detached"},
		"foreign host":         {&oci.Error{Err: &ForeignHostError{Host: "h"}}, ExitRegistry, "--allow-host h"},
		"helper":               {&oci.Error{Err: &oci.HelperError{}}, ExitRegistry, "--no-exec"},
		"plugin":               {&sigstore.KMSError{Err: sigstore.ErrNoPlugin}, ExitFailure, "sigstore-kms-NAME"},
		"unsigned image":       {&bundle.UnsignedImageError{}, ExitUntrusted, "do not pack it"},
		"referrer":             {&bundle.ReferrerError{Err: oci.ErrUnsupported}, ExitRegistry, "referrers: drop"},
		"medium":               {&verify.ContentError{Path: "b", Err: syscall.EIO}, ExitDisk, "another drive"},
		"volume missing":       {&verify.ContentError{Path: "b", Err: volumes(archive.VolumeMissing)}, ExitContent, "other directories"},
		"volume damaged":       {&verify.ContentError{Path: "b", Err: volumes(archive.VolumeDamaged)}, ExitContent, "carry only these"},
		"volume unreadable":    {&verify.ContentError{Path: "b", Err: volumes(archive.VolumeUnreadable)}, ExitDisk, "carry only these"},
		"no bundle":            {&archive.NoBundleError{Dir: "d"}, ExitNotBundle, "NAME-VERSION.tar.zst"},
		"too many volumes":     {&archive.TooManyVolumesError{Size: 9e9, Volume: 1 << 20}, ExitFailure, "--volume-size"},
		"volume too small":     {fmt.Errorf("x: %w", archive.ErrLimit), ExitFailure, ""},
		"beyond repair":        {&verify.BeyondRepairError{}, ExitContent, "carry the damaged parts"},
		"no parity":            {&verify.NoParityError{}, ExitContent, "par001"},
		"too much parity":      {&parity.RowsError{}, ExitFailure, "less"},
		"not written":          {&archive.WrittenError{Err: &archive.DamageError{}}, ExitDisk, "another one"},
		"no room":              {&archive.DiskSpaceError{Dir: "d", Need: 2, Free: 1}, ExitDisk, "free some space"},
		"partial":              {&bundle.PartialError{Path: "b", Done: 1, Total: 2, Err: boom}, ExitFailure, "same command again"},
		"partial, registry":    {&bundle.PartialError{Path: "b", Err: refused}, ExitRegistry, "is the registry running, and can it be reached from here?\n"},
		"changed spec":         {&bundle.ChangedError{Path: "b", Changes: []string{"x"}}, ExitFailure, "--restart"},
		"no program":           {&bundle.BinaryError{Err: boom}, ExitFailure, "--binaries"},
		"damaged, no key":      {&bundle.FileError{Path: "b", Err: &archive.DamageError{}}, ExitContent, "copy the bundle again"},
		"stream":               {&install.StreamError{Failed: 1, Err: refused}, ExitRegistry, "send the stream again"},
		"disk full":            {fmt.Errorf("writing: %w", syscall.ENOSPC), ExitDisk, "free some space"},
		"file too large":       {syscall.EFBIG, ExitDisk, "FAT32"},
		"registry":             {refused, ExitRegistry, "is the registry running"},
		"image":                {&bundle.ImageError{Reference: "x", Err: refused}, ExitRegistry, "is the registry running"},
		"platform":             {&bundle.ImageError{Reference: "x", Err: &oci.MissingPlatformError{}}, ExitFailure, "platforms:"},
		"plain HTTP":           {&oci.Error{Err: &oci.PlainHTTPError{Host: "h:1"}}, ExitRegistry, "--plain-http h:1"},
		"sparse index":         {&install.SparseIndexError{Source: "x", Err: refused}, ExitRegistry, "--index derived"},
		"tags":                 {&install.TagsMoveError{}, ExitRegistry, "--move-tags"},
		"collision":            {&install.CollisionError{}, ExitRegistry, "prefixes"},
		"no spec":              {&bundle.SpecError{Problems: []bundle.Problem{{}}}, ExitFailure, "sealift init"},
		"spec":                 {&bundle.SpecError{Problems: []bundle.Problem{{Line: 3}}}, ExitFailure, "docs/spec.md"},
		"undecided":            {&bundle.UndecidedError{}, ExitFailure, "images --write"},
		"decision":             {&UnknownDecisionError{Pattern: "p"}, ExitFailure, "renderWith"},
		"strict":               {&StrictError{Warnings: []string{"w"}}, ExitFailure, "renderWith"},
		"no lock":              {&bundle.NoLockError{}, ExitFailure, "sealift lock"},
		"stale lock":           {&bundle.StaleLockError{}, ExitFailure, "commit it"},
		"lock":                 {&bundle.LockError{}, ExitFailure, "docs/lock.md"},
		"locked name":          {&bundle.UnknownLockedError{}, ExitFailure, "names are those of the lock"},
		"locked, gone":         {&bundle.ImageError{Pinned: "sha256:x", Err: &oci.Error{Err: &transport.Error{StatusCode: 404}}}, ExitRegistry, "lock --update"},
		"replaced chart":       {&chart.PinError{}, ExitContent, "has been replaced"},
		"chart version":        {&chart.RepositoryError{Err: &chart.VersionError{}}, ExitFailure, "^1.2"},
		"provenance":           {&chart.ProvenanceError{Err: boom}, ExitUntrusted, "keyring:"},
		"library":              {&chart.LibraryError{}, ExitFailure, "the chart that uses it"},
		"chart repository":     {&chart.RepositoryError{Status: 404, Err: boom}, ExitRegistry, "index.yaml"},
		"chart repository, no": {&chart.RepositoryError{Status: 401, Err: boom}, ExitRegistry, "docker login"},
		"rate limit":           {&oci.BusyError{Host: "h", Err: boom}, ExitRegistry, "--mirror"},
		"compressed":           {&bundle.ImageError{Err: &oci.CompressedError{}}, ExitFailure, "gunzip"},
		"ambiguous":            {&bundle.ImageError{Err: &oci.AmbiguousError{}}, ExitFailure, "ref:"},
		"no image":             {&bundle.ImageError{Err: &bundle.NotImageError{}}, ExitFailure, "charts:"},
		"one target name":      {&bundle.TargetNameError{}, ExitFailure, "bundle of its own"},
		"registry values":      {&bundle.ChartError{Err: &bundle.RegistryValuesError{}}, ExitFailure, "gets:"},
		"Kubernetes":           {&bundle.KubernetesError{}, ExitFailure, "kubernetes.versions"},
		"file changed":         {&bundle.FileSpecError{Err: bundle.ErrFileChanged}, ExitFailure, "run this again"},
		"manifests":            {&bundle.ManifestsError{Err: boom}, ExitFailure, "complete Kubernetes objects"},
		"remote":               {&bundle.ManifestsError{Err: &kustomize.RemoteError{}}, ExitFailure, "beside the kustomization"},
		"pattern":              {&bundle.PatternError{Err: boom}, ExitFailure, "REGISTRY/REPOSITORY"},
		"circle":               {&bundle.CycleError{Releases: []string{"a"}}, ExitFailure, "dependsOn"},
		"depends on nothing":   {&bundle.DependsOnError{Err: &bundle.ReleaseNameError{}}, ExitFailure, "NAMESPACE/RELEASE"},
		"parameter of a spec":  {&bundle.ParameterError{Err: boom}, ExitFailure, "default:"},
		"parameter":            {&install.ParameterError{Err: boom}, ExitFailure, "--set"},
		"unknown parameter":    {&install.ParameterError{Known: []string{"one", "two"}, Err: boom}, ExitFailure, "one, two"},
		"cluster version":      {&install.PreflightError{Err: &install.VersionError{}}, ExitPreflight, "upgrade the cluster"},
		"API not served":       {&install.PreflightError{Err: &install.MissingAPIError{}}, ExitPreflight, "api-resources"},
		"image not there":      {&install.PreflightError{Err: &install.NotThereError{}}, ExitPreflight, "retention"},
		"preload":              {&verify.ContentError{Path: verify.StreamName, Err: verify.ErrPreload}, ExitFailure, "save the stream"},
		"exists":               {fmt.Errorf("x: %w", bundle.ErrExists), ExitFailure, "--overwrite"},
		"password":             {fmt.Errorf("x: %w", sigstore.ErrPassword), ExitFailure, "COSIGN_PASSWORD"},
		"key":                  {fmt.Errorf("x: %w", sigstore.ErrKey), ExitFailure, "keygen"},
		"no kubeconfig":        {release.ErrNoKubeconfig, ExitFailure, "--kubeconfig"},
		"kubeconfig":           {&release.KubeconfigError{Err: boom}, ExitCluster, "--kubeconfig"},
		"no cluster":           {&release.UnreachableError{Err: syscall.ECONNREFUSED}, ExitCluster, "nothing was changed"},
		"pending":              {&release.PendingError{Release: "r", Namespace: "n"}, ExitCluster, "helm uninstall r --namespace n"},
		"busy":                 {&release.BusyError{Release: "r", Namespace: "n"}, ExitCluster, "wait for the other install"},
		"no right to lease":    {&release.LeaseError{Namespace: "n", Forbidden: true, Err: boom}, ExitCluster, "leases (coordination.k8s.io) in namespace n"},
		"held by another":      {&release.PendingError{Release: "r", Holder: "h"}, ExitCluster, "wait for that install"},
		"overtaken":            {&install.FailedError{Release: "r", Namespace: "n", Err: boom, Revert: &release.OvertakenError{}}, ExitHeld, "helm history r"},
		"preflight":            {&install.PreflightError{Err: &install.MissingImageError{}}, ExitPreflight, "renderWith"},
		"failed, changed back": {&install.FailedError{Release: "r", Err: refused}, ExitCluster, "nothing that this run changed"},
		"failed, held":         {&install.FailedError{Release: "r", Namespace: "n", Err: boom, Revert: boom}, ExitHeld, "helm rollback r --namespace n"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, err := range []error{c.err, fmt.Errorf("outer: %w", c.err), errors.Join(c.err, nil)} {
				if code := exitCode(context.Background(), err); code != c.code {
					t.Errorf("%v: code %d, want %d", err, code, c.code)
				}
				if h := hint(err); (h == "") != (c.hint == "") || !strings.Contains(h, c.hint) {
					t.Errorf("%v: hint %q, want %q in it", err, h, c.hint)
				}
			}
		})
	}
}

func volumes(kind string) error {
	return &archive.VolumesError{Count: 2, Problems: []archive.VolumeProblem{{Number: 1, Kind: kind}}}
}

func TestInterruptedHasItsCode(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		err  error
		code int
	}{
		{ctx.Err(), ExitInterrupted},
		{&oci.Error{Err: ctx.Err()}, ExitInterrupted},
		{&install.FailedError{Err: ctx.Err()}, ExitInterrupted},
		{&install.FailedError{Err: ctx.Err(), Revert: ctx.Err()}, ExitHeld},
		{&verify.UnsignedError{}, ExitUnsigned},
	} {
		if got := exitCode(ctx, c.err); got != c.code {
			t.Errorf("%T: %d, want %d", c.err, got, c.code)
		}
	}
}

func TestPrintableSteersNoTerminal(t *testing.T) {
	got := printable("a\x1b[2Jb\x07c\r\u009bd\u202ee\n\tf")
	if want := "a\ufffd[2Jb\ufffdc\ufffd\ufffdd\ufffde\n\tf"; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
}
