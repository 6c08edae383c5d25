package cli

import (
	"context"
	"errors"
	"slices"
	"syscall"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/publish"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// Exit codes. docs/exit-codes.md lists them for users; a test compares. 2 is what Go uses
// for a panic and is never used here.
const (
	ExitOK = 0
	// ExitFailure: anything that has no code of its own, and wrong usage.
	ExitFailure = 1
	// ExitNotBundle: the file is not a bundle, or of a format that this version does not know.
	ExitNotBundle = 10
	// ExitUnsigned: the bundle has no signature.
	ExitUnsigned = 11
	// ExitUntrusted: the signatures are not those that are demanded, the policy does not allow
	// what is in the bundle, or the site's record is not what was written there.
	ExitUntrusted = 12
	// ExitContent: the file is not what its signed manifest determines.
	ExitContent = 13
	// ExitStale: a bundle is older than what the site has accepted, has expired, or was revoked.
	ExitStale = 14
	// ExitRegistry: a registry could not be reached, or refused.
	ExitRegistry = 20
	// ExitCluster: the cluster could not be reached, or an install failed and what it had
	// changed was changed back.
	ExitCluster = 21
	// ExitPreflight: an install was refused before anything was changed in the cluster.
	ExitPreflight = 22
	// ExitHeld: an install failed and nothing, or not all, was changed back: a point of no return was passed, or changing back
	// failed too. Or what is installed is in the middle of something.
	ExitHeld = 23
	// ExitDisk: the disk is full, or a medium cannot be read or written.
	ExitDisk = 30
	// ExitInterrupted: stopped by a signal; an install was changed back.
	ExitInterrupted = 130
)

// exitCode tells which code an error has. What is worse for the operator goes first.
func exitCode(ctx context.Context, err error) int {
	var failed *install.FailedError
	if errors.As(err, &failed) {
		switch {
		case failed.Revert != nil, failed.Held != "":
			return ExitHeld
		case ctx.Err() != nil:
			return ExitInterrupted
		}
		return ExitCluster
	}
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return ExitInterrupted
	case is[*usageError](err):
		return ExitFailure
	case is[*install.UnfinishedError](err):
		return ExitHeld
	case is[*install.UnhealthyError](err), is[*install.NotInstalledError](err):
		return ExitCluster
	case is[*install.NotReceiptError](err):
		return ExitContent
	case receiptUnsigned(err):
		return ExitUnsigned
	case is[*ReceiptSignatureError](err):
		return ExitUntrusted
	case is[*install.PreflightError](err), is[*install.PlanChangedError](err), is[*NoWordError](err),
		is[*install.InterruptedError](err), is[*install.NothingOpenError](err), is[*install.ClaimedError](err), is[*install.UntilError](err),
		is[*install.OtherBundleError](err), is[*install.NoReturnError](err), is[*NoBundleError](err), is[*release.ForeignError](err),
		is[*release.FieldConflictError](err), is[*ledger.StateError](err), is[*ledger.TooLargeError](err):
		return ExitPreflight
	case is[*archive.WrittenError](err), unreadable(err):
		return ExitDisk
	case anyOf(err, syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EFBIG):
		return ExitDisk
	case anyOf(err, archive.ErrNotBundle, manifest.ErrUnknownFormat), is[*archive.NoBundleError](err), is[*publish.NotBundleError](err):
		return ExitNotBundle
	case is[*verify.UnsignedError](err):
		return ExitUnsigned
	case is[*verify.UntrustedError](err), is[*trust.ViolationError](err), is[*ForbiddenError](err), is[*UnexpectedError](err),
		is[*site.TamperedError](err), is[*headError](err), is[*trust.EquivocationError](err), is[*verify.ImageSignatureError](err), is[*bundle.UnsignedImageError](err),
		is[*chart.ProvenanceError](err):
		return ExitUntrusted
	case is[*trust.StaleError](err), is[*install.MeanwhileError](err), errors.Is(err, trust.ErrRootBack), is[*trust.RootExpiredError](err):
		return ExitStale
	case is[*trust.RootError](err):
		return ExitUntrusted
	case errors.Is(err, verify.ErrPreload), is[*chart.VersionError](err):
		return ExitFailure
	case unreachable(err), is[*publish.TagMoveError](err):
		return ExitRegistry
	case is[*verify.ContentError](err), is[*bundle.FileError](err), is[*verify.BeyondRepairError](err), is[*verify.NoParityError](err), is[*chart.PinError](err):
		return ExitContent
	case is[*oci.Error](err), is[*install.NoTagDeletionError](err), is[*install.TagTakesImageError](err), is[*install.NoRepositoriesError](err), is[*install.SparseIndexError](err), is[*install.TagsMoveError](err),
		is[*bundle.ReferrerError](err), is[*install.MergeError](err), is[*install.CollisionError](err), is[*install.NameError](err), is[*NamesChangedError](err), is[*install.PlatformsError](err), is[*install.StreamError](err), is[*chart.RepositoryError](err), is[*oci.BusyError](err), is[*registry.ConflictError](err):
		return ExitRegistry
	case ofNode(err):
		return ExitRegistry
	case is[*release.UnreachableError](err), is[*release.CredentialsError](err), is[*release.KubeconfigError](err), is[*release.PendingError](err),
		is[*release.FailedError](err), is[*release.NoRevisionError](err), is[*release.BusyError](err),
		is[*release.LeaseError](err), is[*release.OvertakenError](err):
		return ExitCluster
	}
	return ExitFailure
}

// receiptUnsigned reports whether a receipt has no signature at all.
func receiptUnsigned(err error) bool {
	var e *ReceiptSignatureError
	return errors.As(err, &e) && e.Unsigned
}

// unreadable reports whether a volume could not be read.
func unreadable(err error) bool {
	var v *archive.VolumesError
	return errors.As(err, &v) && slices.ContainsFunc(v.Problems, func(p archive.VolumeProblem) bool { return p.Kind == archive.VolumeUnreadable })
}

// is reports whether err's tree holds an error of type T.
func is[T error](err error) bool {
	var t T
	return errors.As(err, &t)
}

func anyOf(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}
