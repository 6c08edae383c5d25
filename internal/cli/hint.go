package cli

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

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

// hint says what to do about an error, in a line or two, or "". It looks at types, never at text.
func hint(err error) string {
	advice := firstHint(err)
	var partial *bundle.PartialError
	if errors.As(err, &partial) {
		going := fmt.Sprintf("%s of %s are kept beside %s: run the same command again to go on", archive.FormatBytes(partial.Done), archive.FormatBytes(partial.Total), partial.Path)
		if partial.Done == 0 {
			going = fmt.Sprintf("what an earlier run left is kept beside %s: run the same command again to go on", partial.Path)
		}
		return strings.TrimPrefix(advice+"\n"+going, "\n")
	}
	return advice
}

func firstHint(err error) string {
	for _, h := range []func(error) string{
		hintUsage, hintPreflight, hintPlan, hintRecover, hintStatus, hintReceipt, hintRollout, hintSupport, hintLogging, hintNames, hintPrune, hintServe, hintServeBundles, hintMirrors, hintLoad, hintPush, hintPull, hintSign, hintFiles, hintMedia, hintValues, hintInstall, hintSite, hintContent, hintTrust, hintRegistry, hintSpec, hintKeys, hintCluster, hintMissing,
	} {
		if s := h(err); s != "" {
			return s
		}
	}
	return ""
}

func hintUsage(err error) string {
	var u *usageError
	if errors.As(err, &u) {
		return fmt.Sprintf("'%s --help' lists arguments and flags", u.command)
	}
	return ""
}

func hintMedia(err error) string {
	var volumes *archive.VolumesError
	var unread *archive.ReadError
	switch {
	case errors.As(err, &volumes) && slices.ContainsFunc(volumes.Problems, func(p archive.VolumeProblem) bool { return p.Kind != archive.VolumeMissing }):
		return "carry only these volumes again, or restore them with 'sealift repair' if there are parity files"
	case volumes != nil:
		return "if they lie in other directories, name those too; else carry them again, or restore them with 'sealift repair' if there are parity files"
	case errors.As(err, &unread) && errors.Is(err, archive.ErrStream):
		return "save the stream to a file and use that"
	case errors.Is(err, verify.ErrPreload):
		return "save the stream to a file and use that: what it is needed for lies too far behind"
	case isStreamError(err):
		return "send the stream again, from its beginning to its end"
	case is[*verify.BeyondRepairError](err):
		return "carry the damaged parts again; in volumes, of each the best copy can be named"
	case is[*verify.NoParityError](err):
		return "parity files are called BUNDLE.par001 and so on; name their directory beside the bundle"
	case is[*install.StreamError](err):
		return "send the stream again: what has arrived is kept, and only the rest is sent"
	case is[*archive.TooManyVolumesError](err):
		return "choose a larger --volume-size"
	case is[*parity.RowsError](err):
		return "choose less with --parity"
	case is[*archive.NoBundleError](err):
		return "bundles are called NAME-VERSION.tar.zst, their volumes NAME-VERSION.tar.zst.001 and so on; a file of another name is named itself"
	case is[*archive.WrittenError](err):
		return "the disk does not give back what was written to it; write to another one"
	case is[*bundle.ChangedError](err):
		return "put the spec back to go on with it, write to another place with -o, or throw it away with --restart"
	case is[*bundle.BinaryError](err):
		return "put the program there under that name, or name its directory with --binaries"
	}
	return ""
}

// isStreamError reports whether a bundle was not good that came through a pipe.
func isStreamError(err error) bool {
	var content *verify.ContentError
	return errors.As(err, &content) && content.Path == verify.StreamName && !errors.Is(err, verify.ErrPreload)
}

func hintInstall(err error) string {
	var failed *install.FailedError
	var missing *install.MissingImageError
	switch {
	case errors.As(err, &failed) && (is[*release.OvertakenError](failed.Revert) || is[*release.BusyError](failed.Revert)):
		return fmt.Sprintf("somebody else has changed the release since; 'helm history %s --namespace %s' shows what it is now", failed.Release, failed.Namespace)
	case failed != nil && failed.Revert != nil:
		return fmt.Sprintf("the cluster is in between; put right what hindered the way back, then run the install again, or 'helm rollback %s --namespace %s'", failed.Release, failed.Namespace)
	case failed != nil:
		return "nothing that this run changed is left; put right what failed and run the install again"
	case errors.As(err, &missing):
		return "the vendor has to pack the image: list it under images: of the spec, or add values under renderWith: that make the chart use it"
	case is[*chart.KubeVersionError](err):
		return "the chart does not support this version of Kubernetes"
	case is[*install.VersionError](err):
		return "upgrade the cluster, or get a bundle for this version from the vendor"
	case is[*install.MissingAPIError](err):
		return "install what serves them first, an operator or its definitions; 'kubectl api-resources' lists what there is"
	case is[*install.NotThereError](err):
		return "run the install again, which sends what is missing; if it stays so, something at the site removes images: look at the registry's retention rules"
	case is[*install.ParameterError](err):
		return hintParameter(err)
	}
	return ""
}

func hintParameter(err error) string {
	var p *install.ParameterError
	if errors.As(err, &p) && len(p.Known) > 0 {
		return "the bundle knows " + strings.Join(p.Known, ", ")
	}
	return "say it with --set NAME=VALUE, or --set-file NAME=FILE; 'sealift inspect' describes the parameters of a bundle"
}

func hintTrust(err error) string {
	var unsigned *verify.UnsignedError
	var untrusted *verify.UntrustedError
	switch {
	case errors.Is(err, verify.ErrNoPolicy):
		return "name the vendor's public key with --key, as you got it from the vendor by another way than this bundle; or pin a policy for good with 'sealift trust init'"
	case is[*trust.RuleError](err):
		return "'sealift trust show' prints the rules: exactly one has to be for bundles of this name; 'sealift trust update' replaces the policy"
	case is[*trust.GroupError](err):
		return "ask those who are missing to sign it with 'sealift sign', if it is what they stand for; on media that cannot be written with --detached"
	case errors.As(err, &unsigned):
		return fmt.Sprintf("ask the vendor for a signed bundle, or for its signature as %q beside it", filepath.Base(unsigned.Path)+verify.DetachedSuffix)
	case errors.As(err, &untrusted) && len(untrusted.Keys) == 0:
		return "'sealift trust show' says whom this site knows; if the vendor has changed its keys, this site needs its new root or key, or a bundle that is signed anew; else do not use it"
	case untrusted != nil:
		return "compare the key with the vendor's by another way; if it is the right one, the bundle is not the vendor's: do not use it"
	case errors.Is(err, manifest.ErrNotCanonical), errors.Is(err, manifest.ErrInvalid):
		return "it was signed like this, so that no other copy helps: tell the vendor, and do not use it"
	case errors.Is(err, manifest.ErrUnknownFormat):
		return "a newer version of sealift may have written it; or it is something else that somebody has signed"
	case errors.Is(err, archive.ErrNotBundle):
		return "bundles are made by 'sealift pack' and called NAME-VERSION.tar.zst; was this file cut or joined?"
	case is[*archive.SizeError](err), is[*archive.DamageError](err), is[*verify.ContentError](err), is[*bundle.FileError](err):
		return "copy the bundle again and compare; if the original is damaged too, it was changed after it was signed"
	}
	return ""
}

// hintSign is about signing, where what a file or a medium does not allow has another way out.
func hintSign(err error) string {
	var kms *sigstore.KMSError
	switch {
	case errors.Is(err, archive.ErrSlotFull), is[*signingError](err) && anyOf(err, os.ErrPermission, syscall.EROFS):
		return "add --detached: the signature is written beside the bundle then, or with -o DIR to another directory, which is named beside the bundle from then on"
	case is[*attachError](err):
		return "make it with 'cosign sign-blob --new-bundle-format --bundle FILE sealift.json', over the bytes that 'sealift inspect --manifest' prints"
	case errors.As(err, &kms) && errors.Is(err, sigstore.ErrNoPlugin):
		return "put the plugin, a program called sigstore-kms-NAME for a key NAME://…, on the PATH"
	case is[*execError](err):
		return "run this without --no-exec, or use a key in a file"
	}
	return ""
}

// hintSite is about what the site trusts and remembers.
func hintSite(err error) string {
	var stale *trust.StaleError
	switch {
	case errors.As(err, &stale):
		return hintStale(stale)
	case is[*site.TamperedError](err), is[*headError](err):
		return "somebody has changed the record of this site: find out who; 'sealift journal verify --head DIGEST' compares it with a digest that was kept elsewhere, and a backup of the state directory brings it back"
	case is[*install.MeanwhileError](err):
		return "run this again: it is judged by what this site trusts now"
	case is[*noJournalError](err):
		return "if this site has accepted anything, its record is elsewhere: name it with --state"
	case is[*unknownError](err):
		return "'sealift trust show' lists what there is"
	case is[*site.BusyError](err):
		return "wait for the other sealift to end, then run this again"
	case is[*trust.PolicyError](err):
		return "'sealift trust check FILE' reads a policy without pinning it; docs/trust.md explains every key"
	case is[*trust.ViolationError](err):
		return "if the site wants this, change the rule and pin the policy with 'sealift trust update'; else ask the vendor"
	case is[*ForbiddenError](err):
		return "leave it out: the policy of this site says who may sign ('sealift trust show')"
	case is[*UnexpectedError](err):
		return "do not use it: get it again, and the digest by another way"
	case errors.Is(err, errPinned):
		return "'sealift trust show' prints it, 'sealift trust update' replaces it"
	case errors.Is(err, errNotPinned):
		return "'sealift trust init' pins one"
	case is[*missingRootError](err):
		return "name the vendor's N.root.json with --root, or beside the policy"
	case is[*trust.EquivocationError](err):
		return "ALARM: the vendor's root keys have signed two different documents of one version; ask the vendor by another way before you use anything of theirs"
	case errors.Is(err, trust.ErrRootGap):
		return "get the versions in between from the vendor and name all of them"
	case errors.Is(err, trust.ErrRootSignatures):
		return "enough root keys of the version before, and of this one, have to sign it: 'sealift root show OLD NEW' says who has"
	case errors.Is(err, trust.ErrRootBack):
		return "the site has a newer root already; an older one never replaces it"
	case is[*trust.RootError](err):
		return "it is not as a root that follows has to be: tell the vendor; this site keeps the one that it has"
	case errors.Is(err, errNoState):
		return "name a directory with --state; it has to stay, since it holds what this site has accepted"
	}
	return ""
}

func hintStale(e *trust.StaleError) string {
	switch e.Kind {
	case trust.Older:
		return "get the newest bundle from the vendor; if an older one is really wanted, --allow-downgrade --reason TEXT uses it, and the journal keeps why"
	case trust.Changed:
		return "a published version never changes: ask the vendor by another way which of the two is theirs; only if it is this one, --allow-downgrade --reason TEXT uses it"
	case trust.Expired:
		return "get a newer bundle from the vendor; if this one is needed, --allow-expired --reason TEXT uses it; if the clock floor of this site is wrong, 'sealift trust clock'"
	case trust.TooOld:
		return "get a newer bundle from the vendor; the rule is in the policy of the site ('sealift trust show'); for its age alone --allow-expired --reason TEXT uses this one"
	}
	return "do not use it: get the version that replaces it"
}

func hintRegistry(err error) string {
	var (
		plain    *oci.PlainHTTPError
		sparse   *install.SparseIndexError
		platform *oci.MissingPlatformError
		dns      *net.DNSError
		certErr  *tls.CertificateVerificationError
		unknown  x509.UnknownAuthorityError
		record   tls.RecordHeaderError
		regErr   *oci.Error
		foreign  *ForeignHostError
		helper   *oci.HelperError
		op       *net.OpError
		gaveUp   *oci.GaveUpError
	)
	switch {
	case errors.As(err, &sparse):
		return "choose what stands for it: --index derived (an index of only what travels, signed for by the vendor; upstream signatures of the original index do not hold for it) or --index platform (the image of the only platform)"
	case is[*bundle.ReferrerError](err) && anyOf(err, oci.ErrUnsupported, bundle.ErrReferrerSubject, bundle.ErrReferrerLimit):
		return "if sites can do without what is about this image, say referrers: drop under it in the spec; the manifest records that"
	case is[*install.MergeError](err):
		return "what the site's registry has under that tag is not what cosign puts there: rename or remove it, if nobody needs it"
	case is[*install.PlatformsError](err):
		return "use --index derived"
	case is[*install.TagsMoveError](err):
		return "if nothing at the site relies on what they stand for now, add --move-tags"
	case errors.Is(err, oci.ErrUnsupported):
		return "build and push the image again with a current client: OCI, and Docker's schema 2, are supported"
	case errors.As(err, &platform):
		return "pack only platforms that the image has: platforms: of the spec, or of this image under images:"
	case errors.As(err, &foreign):
		return fmt.Sprintf("if %s belongs to this site, as a token server or the registry's storage does, add --allow-host %s", foreign.Host, foreign.Host)
	case errors.As(err, &helper):
		return "run this without --no-exec, or put the credentials themselves into the file with 'podman login' or 'docker login'"
	case is[*oci.HelperFailedError](err):
		return "run the program with the argument get and the registry on its standard input: it says why; or put the credentials themselves into the file"
	case !errors.As(err, &regErr):
		return "" // a cluster has names and certificates too
	case is[*oci.TokenError](err):
		return "look at the log of the token server, which the registry names; 'docker login' there shows whether it serves others"
	case errors.As(err, &certErr), errors.As(err, &unknown):
		return "name the certificate of the registry's authority with --ca-file, or put it where docker and podman look for it, in certs.d/HOST:PORT/ca.crt"
	case errors.As(err, &op) && op.Op == "remote error":
		// What TLS calls an alert: the other side did not like ours.
		return "the registry refuses the connection for its certificates: it may want one of ours, which --client-cert and --client-key name"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Sprintf("the registry does not speak TLS on this port; if that is right, add --plain-http %s", regErr.Registry)
	case errors.As(err, &dns):
		return "the name of the registry is not known here; check its spelling and the DNS"
	case oci.IsNoSpace(err):
		return "make room on the disk of the registry, then run the same again: it goes on with what is missing"
	case oci.IsDenied(err) && regErr.Side == sourceRegistry:
		return "log in with 'docker login' or 'podman login'; if you are, this user may lack the right, or the project does not exist"
	case oci.IsDenied(err):
		return "give --username and its password, or log in with 'docker login' or 'podman login'; if that is right, this user may lack the right, or the project does not exist"
	case oci.IsBusy(err):
		return "it limits its users: wait, log in where that raises the limit, or read from a mirror with --mirror; run the same again to go on"
	case oci.IsNotFound(err):
		return "check the spelling of repository and tag; some registries also say this to users without access"
	case errors.Is(err, syscall.ECONNREFUSED), isTimeout(err):
		return "is the registry running, and can it be reached from here?"
	case is[*oci.MountError](err):
		return "run the same again: it is sent then; if it happens again, the registry is not sound"
	case errors.As(err, &gaveUp):
		return "look at the registry, and at what is on the way to it; then run the same again: it goes on with what is missing"
	// Last: for private addresses the library tries without TLS after anything else has failed.
	case errors.As(err, &plain):
		return fmt.Sprintf("if %s really speaks no TLS, add --plain-http %s", plain.Host, plain.Host)
	}
	return ""
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// hintContent is about what a spec leads to.
func hintContent(err error) string {
	var image *bundle.ImageError
	var edit *bundle.EditError
	switch {
	case is[*bundle.UndecidedError](err):
		return "say for each what it is: under images: (match: PATTERN) it is packed, under ignoreImages: it is left out; 'sealift images --write' asks, and writes the answers"
	case is[*kustomize.RemoteError](err):
		return "put what is there beside the kustomization, in a directory, and name that: a bundle has to come out the same tomorrow"
	case is[*kustomize.PluginError](err):
		return "build it with kustomize yourself, and name the result under manifests:"
	case is[*kustomize.BuildError](err):
		return "'kustomize build' on the directory fails in the same way; what it names has to be on this machine"
	case notThere(err):
		return "paths in a spec are relative to the spec's directory"
	case is[*chart.ObjectsError](err), is[*bundle.ManifestsError](err):
		return "manifests: takes files with complete Kubernetes objects; what has templates is a chart"
	case is[*bundle.PatternError](err):
		return "patterns are written as REGISTRY/REPOSITORY[:TAG][@DIGEST]; a * stays within a segment, a ** does not"
	case errors.As(err, &edit):
		return "write it by hand: " + strings.TrimSpace(edit.Text)
	case is[*bundle.CycleError](err):
		return "one of them has to go first: remove its dependsOn:"
	case is[*bundle.ReleaseNameError](err):
		return "releases are named by release: of the chart (default: the chart's name), with their namespace where that is not clear: NAMESPACE/RELEASE"
	case is[*bundle.ParameterError](err), is[*bundle.ParameterSchemaError](err):
		return "compare type:, default: and path: of the parameter with the chart's values.schema.json"
	case is[*StrictError](err):
		return "decide each of them in the spec: values under renderWith:, patterns under ignoreImages:, other paths; or leave out --strict"
	case is[*UnknownDecisionError](err):
		return "'sealift images' lists what there is; what is possibly missing comes in with values under renderWith: that switch it on, or by its name as ref: under images:"
	case is[*bundle.NotImageError](err):
		return "a Helm chart belongs under charts: (oci: oci://…), anything else under artifacts:"
	case is[*bundle.RegistryValuesError](err):
		return "the parts of the reference have to be those of an image of the bundle, below the registry: look at what else the chart puts together there, and at gets: registry, host or prefix"
	case errors.Is(err, bundle.ErrFileChanged):
		return "run this again when nobody writes to it any more; with a lock, 'sealift lock' first"
	case is[*bundle.ContentError](err):
		return "correct it in the spec; nothing was packed"
	case is[*bundle.PlaceError](err):
		return "what the chart makes there is no reference of an image: give it, under values: or renderWith:, the values that it makes one of"
	case is[*bundle.NoLockError](err):
		return "'sealift lock' writes it; it belongs into version control, beside the spec"
	case is[*bundle.StaleLockError](err):
		return "'sealift lock' brings it up to date, 'sealift lock --update NAME' moves something forward; then look at what changed, and commit it"
	case is[*bundle.LockError](err):
		return "'sealift lock' writes it anew where it was removed; docs/lock.md describes it"
	case is[*bundle.UnknownLockedError](err):
		return "names are those of the lock: images, patterns with *, releases, charts, files"
	case errors.As(err, &image) && image.Pinned != "" && oci.IsNotFound(err):
		return "the registry has lost what the lock pins; 'sealift lock --update' with the name of the image takes what its tag leads to now"
	case is[*oci.CompressedError](err):
		return "decompress it with gunzip, zstd -d or xz -d first"
	case is[*oci.BusyError](err):
		return "wait as long as the registry says, log in where that raises its limit, or read from a mirror with --mirror; what is packed so far is kept"
	case is[*oci.AmbiguousError](err):
		return "ref: says which one is meant: it has to be a name that is in the layout or archive, unless there is only one image in it"
	case is[*bundle.TargetNameError](err):
		return "put one of the two into a bundle of its own, or give it another name with oci: and ref:"
	case is[*bundle.KubernetesError](err):
		return "list under kubernetes.versions the versions that the bundle is made for"
	case is[*chart.PinError](err):
		return "what was published has been replaced: find out why; 'sealift lock --update' with the name of the chart takes what is there now"
	case is[*bundle.ChartError](err) && errors.Is(err, oci.ErrUnsupported):
		return "oci: of a chart has to lead to a chart; images are named under images:, all else that registries hold under artifacts:"
	case is[*chart.LibraryError](err):
		return "name the chart that uses it"
	case is[*chart.DependencyError](err) && !is[*chart.RepositoryError](err) && !is[*oci.Error](err):
		return "the dependencies of a directory are fetched as its Chart.yaml says; 'helm dependency update' writes them, and Chart.lock, into the directory instead"
	case is[*chart.RangeError](err), is[*chart.VersionError](err):
		return "correct version:, which takes a version or a range such as ^1.2"
	case is[*chart.RepositoryError](err):
		return hintRepository(err)
	case is[*chart.ProvenanceError](err):
		return "do not pack it before you know why: compare keyring: and the chart with those of its publisher by another way"
	}
	return ""
}

// notThere reports whether a spec names what is not on this machine.
func notThere(err error) bool {
	return errors.Is(err, os.ErrNotExist) && (is[*bundle.ManifestsError](err) || is[*bundle.FileSpecError](err) || is[*bundle.ImageError](err))
}

// hintRepository is about chart repositories, which are spoken to over plain HTTP and HTTPS.
func hintRepository(err error) string {
	var (
		repository *chart.RepositoryError
		plain      *oci.PlainHTTPError
		dns        *net.DNSError
		certErr    *tls.CertificateVerificationError
	)
	errors.As(err, &repository)
	switch {
	case is[*oci.HelperError](err):
		return "run this without --no-exec, or put the credentials themselves into the file with 'podman login' or 'docker login'"
	case errors.As(err, &plain):
		return fmt.Sprintf("write https:// in the spec, or, if %s really speaks no TLS, add --plain-http %s", plain.Host, plain.Host)
	case repository.Status == http.StatusUnauthorized, repository.Status == http.StatusForbidden:
		return "put the credentials for its host where those for registries are: 'podman login' and 'docker login' store them"
	case repository.Status == http.StatusNotFound:
		return "check the address: index.yaml has to be below it"
	case errors.As(err, &dns):
		return "the name of the chart repository is not known here; check its spelling and the DNS"
	case errors.As(err, &certErr):
		return "name the certificate of its authority with --ca-file"
	case errors.Is(err, syscall.ECONNREFUSED), isTimeout(err):
		return "is the chart repository running, and can it be reached from here?"
	}
	return "look at what the chart repository gives there; 'helm repo add' and 'helm pull' should work with it"
}

func hintSpec(err error) string {
	var missing *chart.MissingDependenciesError
	var spec *bundle.SpecError
	switch {
	case errors.As(err, &missing):
		return "run 'helm dependency update' on the chart"
	case is[*bundle.UnsignedImageError](err):
		return "do not pack it before you know why: compare the key or identity under verify: with the image's publisher by another way"
	case is[*bundle.UnmatchedError](err):
		return "correct the pattern, or remove it: a demand that protects nothing looks like one that does"
	case is[*bundle.DroppedSignaturesError](err):
		return "remove verify: or referrers: drop, which contradict each other for this image"
	case is[*bundle.SignerFileError](err):
		return "paths in a spec are relative to the spec's directory"
	case errors.As(err, &spec) && len(spec.Problems) > 0 && spec.Problems[0].Line == 0:
		return "'sealift init' writes a commented spec to start from, or to compare with"
	case spec != nil:
		return "docs/spec.md explains every key; editors check specs with what 'sealift schema' prints"
	case is[*bundle.ValuesError](err), is[*bundle.ChartError](err) && errors.Is(err, os.ErrNotExist):
		return "paths in a spec are relative to the spec's directory"
	case is[*chart.RenderError](err), is[*chart.SchemaError](err):
		return "the chart must render with the values of the spec: put what it requires into a file under values:, or under renderWith: if the site decides"
	case is[*bundle.ThereError](err):
		return "write to another directory with -o, or replace it with --overwrite; parity files are replaced by removing them first"
	case errors.Is(err, bundle.ErrExists):
		return "a published version never changes: raise version: in the spec, or replace the file with --overwrite; 'sealift sign' adds a signature to it"
	case errors.Is(err, archive.ErrBusy):
		return "wait for the other pack to end, or write to another place with -o"
	}
	return ""
}

func hintKeys(err error) string {
	switch {
	case errors.Is(err, sigstore.ErrPassword):
		return "set COSIGN_PASSWORD to the password that the key was made with"
	case errors.Is(err, errNoPassword):
		return "set COSIGN_PASSWORD, or run this at a terminal"
	case errors.Is(err, sigstore.ErrKey):
		return "--key takes the private key (cosign.key) to sign and the public key (cosign.pub) to verify; 'sealift keygen' makes both"
	case errors.Is(err, errNoKey):
		return "sign with --key cosign.key, or say --unsigned if the bundle will be signed later"
	}
	return ""
}

func hintCluster(err error) string {
	var (
		pending *release.PendingError
		lease   *release.LeaseError
	)
	switch {
	case is[*release.ExecError](err):
		return "run this without --no-exec, or use a kubeconfig with a token or a client certificate"
	case release.IsForbidden(err) && !is[*release.LeaseError](err):
		return "the account of the kubeconfig lacks a right; docs/operate.md lists those that an install needs"
	case is[*release.BusyError](err):
		return "nothing was changed; wait for the other install to end, then run this again"
	case errors.As(err, &lease) && lease.Forbidden:
		return fmt.Sprintf("installing needs the rights to get, create, update and delete leases (coordination.k8s.io) in namespace %s", lease.Namespace)
	case errors.As(err, &pending) && pending.Holder != "":
		return "wait for that install to end; only if it was killed, run this again after a minute"
	case errors.As(err, &pending) && pending.Back != nil:
		return fmt.Sprintf("if no other install is running, 'helm rollback %s %d --namespace %s' puts it back", pending.Release, pending.Back.Revision, pending.Namespace)
	case pending != nil:
		return fmt.Sprintf("if no other install is running, 'helm uninstall %s --namespace %s' clears the interrupted one", pending.Release, pending.Namespace)
	case errors.Is(err, release.ErrNoKubeconfig):
		return "name one with --kubeconfig or KUBECONFIG; --dry-run works without a cluster"
	case is[*release.KubeconfigError](err):
		return "check --kubeconfig, KUBECONFIG and --context"
	case is[*release.UnreachableError](err):
		return "nothing was changed; check that the cluster's address in the kubeconfig can be reached from here"
	}
	return ""
}

// hintMissing is the last resort for a file that is not there.
func hintMissing(err error) string {
	if errors.Is(err, os.ErrExist) {
		return "choose another place, or remove what is there"
	}
	if errors.Is(err, os.ErrNotExist) {
		return "check the path; a relative one starts in the directory that you are in"
	}
	return ""
}

func hintFiles(err error) string {
	switch {
	case anyOf(err, syscall.ENOSPC, syscall.EDQUOT):
		return "free some space there, or write elsewhere with -o"
	case errors.Is(err, syscall.EFBIG):
		return "the file system cannot hold a file of this size (FAT32 ends at 4 GiB): cut it with --volume-size fat32, or use exFAT or another one"
	case errors.Is(err, syscall.EIO):
		return "the medium cannot be read or written; try another drive or another copy"
	case errors.Is(err, os.ErrPermission):
		return "check the rights of the file and of its directory"
	case is[*install.PlaceError](err):
		return "extract to another directory with -o, or remove this one if nobody needs what is in it"
	case errors.Is(err, install.ErrExtracting):
		return "wait for the other extract to end, or extract to another directory with -o"
	}
	return ""
}
