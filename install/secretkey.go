package install

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/manifest"
)

// MaxParameterBytes bounds the value of a parameter.
const MaxParameterBytes = 1 << 20

// SecretKey names a value in a Secret of the cluster.
type SecretKey struct{ Namespace, Name, Key string }

// String is "NAMESPACE/NAME:KEY".
func (k SecretKey) String() string { return k.Namespace + "/" + k.Name + ":" + k.Key }

// ParseSecretKey reads "NAMESPACE/NAME:KEY".
func ParseSecretKey(text string) (SecretKey, error) {
	object, key, keyed := strings.Cut(text, ":")
	namespace, name, named := strings.Cut(object, "/")
	valid := keyed && named && manifest.CheckNamespace(namespace) == nil && isObjectName(name) && isDataKey(key)
	if !valid {
		return SecretKey{}, fmt.Errorf("secret %q is not written as NAMESPACE/NAME:KEY", text)
	}
	return SecretKey{namespace, name, key}, nil
}

// isObjectName reports whether s names an object: a DNS subdomain (RFC 1123).
func isObjectName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if manifest.CheckName(label) != nil {
			return false
		}
	}
	return true
}

// isDataKey reports whether s is a key of a Secret or ConfigMap.
func isDataKey(s string) bool {
	if s == "" || len(s) > 253 || s == "." || s == ".." {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	})
}

// secretKey is the Secret that a parameter comes from, as it was said now or before.
func (s Site) secretKey(name string) (SecretKey, bool) {
	if key, is := s.Secrets[name]; is {
		return key, true
	}
	key, is := s.kept.secrets[name]
	return key, is
}

var errNotText = errors.New("its value is not text in UTF-8")

// secretKeys are all parameters that come from Secrets, as it was said now or before.
func (s Site) secretKeys() map[string]SecretKey {
	keys := map[string]SecretKey{}
	maps.Copy(keys, s.kept.secrets)
	maps.Copy(keys, s.Secrets)
	return keys
}

// ReadSecrets reads the parameters that come from Secrets of the cluster, and calls hide with each. Errors
// are *SecretError.
func (s Site) ReadSecrets(ctx context.Context, cluster *release.Cluster, hide func(parameter, value string)) (Site, error) {
	keys := s.secretKeys()
	s.read = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		key := keys[name]
		raw, err := cluster.SecretValue(ctx, key.Namespace, key.Name, key.Key, MaxParameterBytes)
		if err == nil && !utf8.Valid(raw) {
			err = errNotText
		}
		if err != nil {
			return Site{}, &SecretError{name, key, err}
		}
		// As in a file, the last line's end is no part of it.
		text := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
		hide(name, text)
		s.read[name] = text
	}
	return s, nil
}
