package site

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// digestOf returns the digest of raw as it is written everywhere: "sha256:" and 64 hex digits.
func digestOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// marshal returns the canonical bytes of v: its members in the order of the type, no white
// space, no HTML escapes, no newline.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

var errNotCanonical = errors.New("it is not in its canonical form")

// unmarshal decodes raw into v, and fails unless raw begins with prefix, knows no other members
// than v and is what encode makes of v.
func unmarshal(raw []byte, prefix string, v any, encode func() ([]byte, error)) error {
	if !bytes.HasPrefix(raw, []byte(prefix)) {
		return fmt.Errorf("it does not begin with %q, as this version of sealift writes it", prefix)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("it is cut short")
		}
		return err
	}
	again, err := encode()
	if err != nil {
		return err
	}
	if !bytes.Equal(again, raw) {
		return errNotCanonical
	}
	return nil
}

// formatTime returns t in whole seconds as RFC 3339 in UTC.
func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// checkTime reports whether s is what formatTime makes of a time from 1970 on.
func checkTime(s string) error {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || formatTime(t) != s || t.Year() < 1970 {
		return fmt.Errorf("%q is not a UTC time such as 2026-01-02T03:04:05Z", s)
	}
	return nil
}
