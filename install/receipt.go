package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// ReceiptMediaType is the first member of every receipt that leaves the cluster, so that no other signed document can pass for one.
const ReceiptMediaType = "application/vnd.sealift.receipt.v1+json"

// MaxReceiptBytes bounds a receipt that is read: it comes out of a state.
const MaxReceiptBytes = ledger.MaxBytes

const receiptPrefix = `{"mediaType":"` + ReceiptMediaType + `","id":`

// statement is a receipt with its type.
type statement struct {
	MediaType string `json:"mediaType"`
	ledger.Receipt
}

// EncodeReceipt writes a receipt as it is carried back: one line of canonical JSON, its type first. The same receipt always gives
// the same bytes, which may be signed.
func EncodeReceipt(r *ledger.Receipt) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(statement{ReceiptMediaType, withoutSecrets(r)}); err != nil {
		return nil, fmt.Errorf("writing the receipt %q: %w", r.ID, err)
	}
	if b.Len() > MaxReceiptBytes {
		return nil, fmt.Errorf("writing the receipt %q: it has %d bytes, at most %d are allowed", r.ID, b.Len(), MaxReceiptBytes)
	}
	return b.Bytes(), nil
}

// withoutSecrets is a receipt in which secret parameters have no value, whoever wrote it.
func withoutSecrets(r *ledger.Receipt) ledger.Receipt {
	c := *r
	c.Parameters = slices.Clone(r.Parameters)
	for i := range c.Parameters {
		if c.Parameters[i].Secret {
			c.Parameters[i].Value = ""
		}
	}
	return c
}

// NotReceiptError says that bytes are no receipt.
type NotReceiptError struct{ Err error }

// Error says why.
func (e *NotReceiptError) Error() string { return fmt.Sprintf("not a receipt: %v", e.Err) }

// Unwrap returns the cause.
func (e *NotReceiptError) Unwrap() error { return e.Err }

var errNotAsWritten = errors.New("it is not written as receipts are")

// DecodeReceipt reads what EncodeReceipt wrote, and nothing else: each other form of the same content is refused. Errors are
// *NotReceiptError.
func DecodeReceipt(raw []byte) (*ledger.Receipt, error) {
	r, err := decodeReceipt(raw)
	if err != nil {
		return nil, &NotReceiptError{err}
	}
	return r, nil
}

func decodeReceipt(raw []byte) (*ledger.Receipt, error) {
	if len(raw) > MaxReceiptBytes {
		return nil, fmt.Errorf("it has more than %d bytes", MaxReceiptBytes)
	}
	if !bytes.HasPrefix(raw, []byte(receiptPrefix)) {
		return nil, fmt.Errorf("it does not begin with the type %s", ReceiptMediaType)
	}
	if err := ledger.CheckObjects(raw); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var s statement
	if err := dec.Decode(&s); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errors.New("it is cut short")
		}
		return nil, err
	}
	again, err := EncodeReceipt(&s.Receipt)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, raw) {
		return nil, errNotAsWritten
	}
	return &s.Receipt, nil
}

// ReceiptInput is what is known about an install before it begins.
type ReceiptInput struct {
	Bundle *verify.Bundle
	// Accept are the words with which it is accepted: Reason and Weakened.
	Accept AcceptOptions
	// Images are where the bundle's are at the site.
	Images []SeededImage
	// Registry is HOST[/PREFIX]; empty where the nodes have the images.
	Registry    string
	Parameters  []Said
	Environment string
	// Plan is the digest of the plan that is followed, empty for none.
	Plan string
	// BackupDone is the operator's word about a backup; NoReturn are the points of no return that are accepted.
	BackupDone string
	NoReturn   []string
	// Cluster is the UID of the cluster, Kubernetes its version.
	Cluster, Kubernetes string
	// By is USER@HOST, Tool the version of Sealift.
	By, Tool string
	// Journal is the end of the site's journal.
	Journal site.Head
}

// NewReceipt is the receipt of an install as far as it is known before it begins. Who does it fills in what becomes of it: ID,
// Action, Outcome, Replaces, the times, releases, checks, what is kept, and the values. Secret parameters have no value in it.
func NewReceipt(in ReceiptInput) ledger.Receipt {
	m, e := in.Bundle.Manifest(), in.Bundle.Evidence()
	r := ledger.Receipt{
		Bundle: m.Name, Version: m.Version, Channel: m.Channel, Manifest: e.Manifest, Created: m.Created, Expires: m.Expires,
		Signers: []ledger.Signer{}, Rule: e.Rule, Policy: e.Policy, Unsigned: e.Unsigned,
		Overrides: []string{}, Reason: in.Accept.Reason,
		Cluster: in.Cluster, Kubernetes: in.Kubernetes, Registry: in.Registry, By: in.By, Tool: in.Tool,
		Environment: in.Environment, Parameters: []ledger.Parameter{}, Plan: in.Plan, BackupDone: in.BackupDone,
		NoReturn: append([]string{}, in.NoReturn...), Releases: []ledger.Release{}, Images: imagesOf(in.Bundle, in.Images),
		Checks: []ledger.Checked{}, Kept: []string{}, JournalSeq: in.Journal.Seq, JournalDigest: in.Journal.Digest,
	}
	for i := range e.Signed {
		s := ledger.Signer{Who: e.Signed[i].Signer(), Times: []string{}}
		for _, t := range e.Signed[i].Times {
			s.Times = append(s.Times, strings.TrimSpace(stamp(t.At)+" "+t.Kind+" "+t.Authority))
		}
		r.Signers = append(r.Signers, s)
	}
	for _, g := range e.Groups {
		r.Groups = append(r.Groups, ledger.Group{
			Name: g.Group, Threshold: g.Threshold, Signers: append([]string{}, g.Signers...), Root: g.Root, RootVersion: g.RootVersion,
		})
	}
	// That under which it was accepted stands first.
	under := rootOf(e)
	for _, root := range e.Roots {
		entry := ledger.Root{Name: root.Name, Version: root.Version, Digest: root.Digest}
		if under != nil && under.Name == root.Name {
			r.Roots = append([]ledger.Root{entry}, r.Roots...)
		} else {
			r.Roots = append(r.Roots, entry)
		}
	}
	r.Overrides = append(r.Overrides, in.Accept.Weakened...)
	for _, s := range in.Bundle.Stale() {
		r.Overrides = append(r.Overrides, s.Text)
	}
	r.Accept = acceptance(in.Bundle)
	for _, p := range in.Parameters {
		kept := ledger.Parameter{Name: p.Name, Value: p.Value, Secret: p.Secret, Default: p.Default}
		if p.Secret {
			kept.Value = ""
		}
		r.Parameters = append(r.Parameters, kept)
	}
	return r
}

// provenAt is the time in a text about a proven one.
func provenAt(text string) string {
	at, _, _ := strings.Cut(text, " ")
	return at
}

// acceptance says what an install means for what is accepted, as accept does for the record of a machine.
func acceptance(b *verify.Bundle) string {
	if b.Evidence().Unsigned {
		return ledger.AcceptNothing
	}
	older := false
	for _, s := range b.Stale() {
		if s.Kind == trust.Changed {
			return ledger.AcceptReplace
		}
		older = older || s.Kind == trust.Older
	}
	if older {
		return ledger.AcceptOlder
	}
	if judged := b.Judged(); judged != nil {
		m := b.Manifest()
		if have := judged.Find(m.Name, m.Channel); have != nil && resets(b, have) {
			return ledger.AcceptReplace
		}
	}
	return ledger.AcceptRaise
}

// imagesOf lists the images of a bundle, where they are, and by which digests containers may name them.
func imagesOf(b *verify.Bundle, seeded []SeededImage) []ledger.Image {
	at := map[string]*SeededImage{}
	for i := range seeded {
		at[seeded[i].Source] = &seeded[i]
	}
	images := []ledger.Image{}
	for i := range b.Manifest().Images {
		img := &b.Manifest().Images[i]
		entry := ledger.Image{Source: img.Source, Target: img.Source, Digest: img.Digest}
		if s := at[img.Source]; s != nil {
			entry.Target, entry.Digest = s.Target, s.Digest
		}
		digests := []string{img.Digest}
		if img.Derived != nil {
			digests = append(digests, img.Derived.Digest)
		}
		manifests := []string{}
		for _, c := range img.Children {
			manifests = append(manifests, c.Digest)
		}
		if len(img.Children) == 0 {
			manifests = append(manifests, img.Digest)
		}
		for _, d := range append(digests, manifests...) {
			if d != entry.Digest && !slices.Contains(entry.Manifests, d) {
				entry.Manifests = append(entry.Manifests, d)
			}
		}
		if img.ArtifactType == "" {
			for _, d := range manifests {
				if c := configOf(b, d); c != "" {
					entry.Configs = append(entry.Configs, c)
				}
			}
		}
		for _, ref := range img.Referrers {
			entry.Referrers = append(entry.Referrers, ledger.Referrer{ArtifactType: kindOf(&ref), Digest: ref.Digest})
		}
		images = append(images, entry)
	}
	return images
}

// configOf is the digest of the configuration of an image, empty where the bundle cannot tell.
func configOf(b *verify.Bundle, digest string) string {
	raw, err := b.ReadBlob(digest, manifest.MaxOCIManifestBytes)
	if err != nil {
		return "" // it is one way more to recognise the image, and the others are known
	}
	var m struct {
		Config struct {
			Digest string `json:"digest"`
		} `json:"config"`
	}
	if json.Unmarshal(raw, &m) != nil || manifest.CheckDigest(m.Config.Digest) != nil {
		return ""
	}
	return m.Config.Digest
}

// kindOf says what a referrer is.
func kindOf(r *manifest.Referrer) string {
	switch {
	case r.ArtifactType != "":
		return r.ArtifactType
	case strings.HasSuffix(r.Tag, ".sig"):
		return "signature"
	case strings.HasSuffix(r.Tag, ".att"):
		return "attestation"
	case strings.HasSuffix(r.Tag, ".sbom"):
		return "sbom"
	}
	return r.MediaType
}

// Receipts are the receipts of a state, newest first: what is installed, what was before, and what failed.
func Receipts(s *ledger.State) []*ledger.Receipt {
	all := []*ledger.Receipt{}
	installed := s.Installed
	for i := len(s.History) - 1; i >= 0; i-- {
		// What failed after the last success is younger than that.
		if installed != nil && s.History[i].Ended <= installed.Ended {
			all = append(all, installed)
			installed = nil
		}
		all = append(all, &s.History[i])
	}
	if installed != nil {
		all = append(all, installed)
	}
	return all
}

// ageOf is when a bundle was made, and when it ends; zero times where it does not say.
func ageOf(r *ledger.Receipt) (created, expires time.Time) {
	created, _ = time.Parse(time.RFC3339, r.Created)
	expires, _ = time.Parse(time.RFC3339, r.Expires)
	return created, expires
}
