package chart

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	chartv2 "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/sealift/sealift/manifest"
)

// SetValue sets the value that path leads to (see manifest.CheckValuePath), making the mappings on
// the way. It changes values itself, and fails before it does where something else than a mapping is
// in the way, or where a mapping with keys would be replaced by something that is none.
func SetValue(values map[string]any, path string, v any) error {
	if err := manifest.CheckValuePath(path); err != nil {
		return fmt.Errorf("setting a value: %w", err)
	}
	keys := manifest.SplitValuePath(path)
	if values == nil {
		return errors.New("setting a value: there are no values to set it in")
	}
	at := values
	last := len(keys) - 1
	for i, key := range keys[:last] {
		next, ok := at[key].(map[string]any)
		if !ok {
			if at[key] != nil {
				return fmt.Errorf("setting value %q: %q is %s, not a mapping", path, strings.Join(keys[:i+1], "."), describe(at[key]))
			}
			// Nothing was there: what follows cannot fail any more.
			next = map[string]any{}
			at[key] = next
		}
		at = next
	}
	if old, ok := at[keys[last]].(map[string]any); ok && len(old) > 0 {
		if _, ok := v.(map[string]any); !ok {
			return fmt.Errorf("setting value %q: there is a mapping with %d keys, which would be lost", path, len(old))
		}
	}
	at[keys[last]] = v
	return nil
}

func describe(v any) string {
	switch v.(type) {
	case []any:
		return "a list"
	case string:
		return "a text"
	case bool:
		return "true or false"
	}
	return "a number"
}

// UnknownValues returns those of paths at which the chart has no value: neither in its own values
// nor in those of its sub-charts, whether they are enabled or not, nor in given. Below a mapping
// that is empty in the chart anything may be, and where it has nothing but a key as well.
func (c *Chart) UnknownValues(paths []string, given map[string]any) ([]string, error) {
	ch, err := c.HelmChart()
	if err != nil {
		return nil, err
	}
	var unknown []string
	for _, path := range paths {
		if err := manifest.CheckValuePath(path); err != nil {
			return nil, err
		}
		keys := manifest.SplitValuePath(path)
		if !hasValue(given, keys) && !chartHasValue(ch, keys) {
			unknown = append(unknown, path)
		}
	}
	return unknown, nil
}

func chartHasValue(ch *chartv2.Chart, keys []string) bool {
	if hasValue(ch.Values, keys) {
		return true
	}
	for _, sub := range ch.Dependencies() {
		// Every chart sees the global values, also those that only a sub-chart has.
		if keys[0] == "global" && hasValue(sub.Values, keys) {
			return true
		}
		called := keys[0] == sub.Name() || slices.ContainsFunc(ch.Metadata.Dependencies, func(d *chartv2.Dependency) bool {
			return d.Name == sub.Name() && d.Alias == keys[0]
		})
		if called && (len(keys) == 1 || keys[1] == "global" || chartHasValue(sub, keys[1:])) {
			return true
		}
	}
	return false
}

func hasValue(values map[string]any, keys []string) bool {
	for i, key := range keys {
		v, ok := values[key]
		if !ok {
			return false
		}
		next, ok := v.(map[string]any)
		if !ok {
			// A null, or a text that is replaced, may stand for anything; but not for a mapping.
			return i == len(keys)-1 || v == nil
		}
		if len(next) == 0 {
			return true
		}
		values = next
	}
	return true
}

// HasValue reports whether values have something at a path, be it null, or something else than a mapping on
// the way there.
func HasValue(values map[string]any, path string) bool {
	at := values
	for _, key := range manifest.SplitValuePath(path) {
		v, ok := at[key]
		if !ok {
			return false
		}
		if at, ok = v.(map[string]any); !ok {
			return true
		}
	}
	return true
}

// CopyValues returns a copy of values that shares nothing with them.
func CopyValues(values map[string]any) map[string]any {
	out := make(map[string]any, len(values))
	for k, v := range values {
		out[k] = copyValue(v)
	}
	return out
}

func copyValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return CopyValues(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = copyValue(v[i])
		}
		return out
	}
	return v
}
