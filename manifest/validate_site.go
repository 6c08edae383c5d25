package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	// quantityPattern is the plain part of the grammar of Kubernetes quantities: no sign, no
	// exponent, nothing below a thousandth.
	quantityPattern     = lazily(`\A[0-9]{1,16}(?:\.[0-9]{1,9})?(?:m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?\z`)
	architecturePattern = lazily(`\A[a-z0-9_]{1,32}\z`)
	apiVersionPattern   = lazily(`\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z`)
	apiKindPattern      = lazily(`\A[A-Za-z][A-Za-z0-9]{0,62}\z`)
)

// CheckQuantity reports whether s is an amount as Kubernetes writes it, such as 4, 500m or 8Gi.
func CheckQuantity(s string) error {
	if !quantityPattern().MatchString(s) {
		return fmt.Errorf("quantity %q is not written as 4, 0.5, 500m or 8Gi", s)
	}
	return nil
}

// CheckAPIGroup reports whether s is written as GROUP, GROUP/VERSION or GROUP/VERSION/KIND.
func CheckAPIGroup(s string) error {
	group, rest, versioned := strings.Cut(s, "/")
	version, kind, ofKind := strings.Cut(rest, "/")
	if checkSubdomain(group) != nil || versioned && !apiVersionPattern().MatchString(version) || ofKind && !apiKindPattern().MatchString(kind) {
		return fmt.Errorf("API group %q is not written as GROUP, GROUP/VERSION or GROUP/VERSION/KIND", s)
	}
	return nil
}

func (m *Manifest) validateFiles(blobs map[string]*Blob) error {
	names := make(map[string]bool, len(m.Files))
	for i := range m.Files {
		f := &m.Files[i]
		if err := CheckFileName(f.Name); err != nil {
			return err
		}
		if err := carried(blobs, Descriptor{f.Digest, MediaTypeFile, f.Size}, MaxEntryBytes); err != nil {
			return fmt.Errorf("file %q: %w", f.Name, err)
		}
		if name := folded(f.Name); names[name] {
			return fmt.Errorf("file %q twice, or in upper and in lower case", f.Name)
		}
		names[folded(f.Name)] = true
	}
	for i := range m.Files {
		name := folded(m.Files[i].Name)
		for at := strings.LastIndexByte(name, '/'); at > 0; at = strings.LastIndexByte(name[:at], '/') {
			if names[name[:at]] {
				return fmt.Errorf("file %q lies in %q, which is a file as well", m.Files[i].Name, m.Files[i].Name[:at])
			}
		}
	}
	return nil
}

func (m *Manifest) validateNotes(blobs map[string]*Blob) error {
	if m.Notes == nil {
		return nil
	}
	if err := carriedAs(MediaTypeNotes, blobs, *m.Notes, MaxNotesBytes); err != nil {
		return fmt.Errorf("notes: %w", err)
	}
	return nil
}

func (m *Manifest) validateRequires() error {
	r := m.Requires
	if r == nil {
		return nil
	}
	if r.Kubernetes+r.UpgradeFrom+r.CPU+r.Memory == "" && len(r.Architectures)+len(r.StorageClasses)+len(r.APIGroups) == 0 {
		return errors.New("requires: nothing is required")
	}
	if err := r.validate(); err != nil {
		return fmt.Errorf("requires: %w", err)
	}
	return nil
}

func (r *Requires) validate() error {
	for _, s := range []string{r.Kubernetes, r.UpgradeFrom} {
		if len(s) > MaxRangeBytes || !plain(s) {
			return fmt.Errorf("range %q holds characters that cannot be shown, or is too long", s)
		}
	}
	for _, s := range []string{r.CPU, r.Memory} {
		if err := CheckQuantity(s); s != "" && err != nil {
			return err
		}
	}
	for _, l := range []struct {
		what  string
		list  []string
		check func(string) error
	}{
		{"architecture", r.Architectures, checkArchitecture},
		{"storage class", r.StorageClasses, checkStorageClass},
		{"API group", r.APIGroups, CheckAPIGroup},
	} {
		if len(l.list) > MaxRequired {
			return fmt.Errorf("%s: %d are required, at most %d are allowed", l.what, len(l.list), MaxRequired)
		}
		for i, s := range l.list {
			if err := l.check(s); err != nil {
				return err
			}
			if slices.Contains(l.list[:i], s) {
				return fmt.Errorf("%s %q twice", l.what, s)
			}
		}
	}
	return nil
}

func checkArchitecture(s string) error {
	if !architecturePattern().MatchString(s) {
		return fmt.Errorf("architecture %q is not made of lower-case letters, digits and underscores (at most 32)", s)
	}
	return nil
}

func checkStorageClass(s string) error {
	if s == "*" {
		return nil
	}
	if err := checkSubdomain(s); err != nil {
		return fmt.Errorf("storage class: %w", err)
	}
	return nil
}
