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
		hintUsage, hintSign, hintFiles, hintMedia, hintInstall, hintSite, hintTrust, hintRegistry, hintSpec, hintKeys, hintCluster, hintMissing,
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
	return errors.As(err, &content) && content.Path == verify.StreamName
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
	}
	return ""
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
	case is[*install.CollisionError](err):
		return "seed the two from bundles of their own to registries, or prefixes, of their own"
	case errors.Is(err, oci.ErrUnsupported):
		return "build and push the image again with a current client: OCI, and Docker's schema 2, are supported"
	case errors.As(err, &platform):
		return "pack only platforms that the image has: platforms: of the spec, or of this image under images:"
	case errors.As(err, &foreign):
		return fmt.Sprintf("if %s belongs to this site, as a token server or the registry's storage does, add --allow-host %s", foreign.Host, foreign.Host)
	case errors.As(err, &helper):
		return "run this without --no-exec, or put the credentials themselves into the file with 'podman login' or 'docker login'"
	case !errors.As(err, &regErr):
		return "" // a cluster has names and certificates too
	case errors.As(err, &certErr), errors.As(err, &unknown):
		return "make the system trust the registry's certificate authority, or set SSL_CERT_FILE to it"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Sprintf("the registry does not speak TLS on this port; if that is right, add --plain-http %s", regErr.Registry)
	case errors.As(err, &dns):
		return "the name of the registry is not known here; check its spelling and the DNS"
	case oci.IsDenied(err):
		return "log in with 'docker login' or 'podman login'; if you are, this user may lack the right, or the project does not exist"
	case oci.IsNotFound(err):
		return "check the spelling of repository and tag; some registries also say this to users without access"
	case errors.Is(err, syscall.ECONNREFUSED), isTimeout(err):
		return "is the registry running, and can it be reached from here?"
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

func hintSpec(err error) string {
	var missing *chart.MissingDependenciesError
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
	case is[*bundle.SpecError](err):
		return "'sealift init' writes a commented spec to start from, or to compare with"
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
