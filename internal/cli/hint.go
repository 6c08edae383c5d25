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
		hintUsage, hintFiles, hintMedia, hintInstall, hintTrust, hintRegistry, hintSpec, hintKeys, hintCluster, hintMissing,
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
	switch {
	case errors.Is(err, verify.ErrNoPolicy):
		return "name the vendor's public key with --key, as you got it from the vendor by another way than this bundle"
	case errors.As(err, &unsigned):
		return fmt.Sprintf("ask the vendor for a signed bundle, or for its signature as %q beside it", filepath.Base(unsigned.Path)+verify.DetachedSuffix)
	case is[*verify.UntrustedError](err):
		return "compare the key with the vendor's by another way; if it is the right one, the bundle is not the vendor's: do not use it"
	case errors.Is(err, manifest.ErrUnknownFormat):
		return "a newer version of sealift may have written it"
	case errors.Is(err, archive.ErrNotBundle):
		return "bundles are made by 'sealift pack' and called NAME-VERSION.tar.zst; was this file cut or joined?"
	case is[*archive.SizeError](err), is[*archive.DamageError](err), is[*verify.ContentError](err), is[*bundle.FileError](err):
		return "copy the bundle again and compare; if the original is damaged too, it was changed after it was signed"
	}
	return ""
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
	)
	switch {
	case errors.As(err, &sparse):
		return "choose what stands for it: --index derived (an index of only what travels, signed for by the vendor; upstream signatures of the original index do not hold for it) or --index platform (the image of the only platform)"
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
	case is[*bundle.SpecError](err):
		return "'sealift init' writes a commented spec to start from, or to compare with"
	case is[*bundle.ValuesError](err), is[*bundle.ChartError](err) && errors.Is(err, os.ErrNotExist):
		return "paths in a spec are relative to the spec's directory"
	case is[*chart.RenderError](err), is[*chart.SchemaError](err):
		return "the chart must render with the values of the spec: put what it requires into a file under values:, or under renderWith: if the site decides"
	case is[*bundle.ThereError](err):
		return "write to another directory with -o, or replace it with --overwrite; parity files are replaced by removing them first"
	case errors.Is(err, bundle.ErrExists):
		return "a published version never changes: raise version: in the spec, or replace the file with --overwrite"
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
