package support

import (
	"fmt"
	"strings"

	"github.com/sealift/sealift/internal/redact"
)

// lastApplied is a part of the names of annotations that hold a whole object once more.
const lastApplied = "last-applied"

// maxAnnotation bounds the annotations that are shown, in bytes: longer ones hold objects, or archives.
const maxAnnotation = 1024

// Redact takes out of a Kubernetes object what may be secret: all that Secrets hold, and ConfigMaps unless
// configMaps says that they are to be seen, annotations that repeat objects, and the values of environment
// variables and fields whose names look as if they were secret. It changes the object.
func Redact(object map[string]any, configMaps bool) {
	kind, _ := object["kind"].(string)
	switch {
	case kind == "Secret", kind == "ConfigMap" && !configMaps:
		for _, field := range []string{"data", "stringData", "binaryData"} {
			if values, ok := object[field].(map[string]any); ok {
				for key, v := range values {
					values[key] = sized(v)
				}
			}
		}
	}
	redactMeta(object)
	redactValues(object, "", 0)
}

func sized(v any) string { return fmt.Sprintf("%s, %d bytes", redact.Hidden, len(fmt.Sprint(v))) }

func redactMeta(object map[string]any) {
	meta, ok := object["metadata"].(map[string]any)
	if !ok {
		return
	}
	annotations, ok := meta["annotations"].(map[string]any)
	if !ok {
		return
	}
	for name, v := range annotations {
		if text := fmt.Sprint(v); strings.Contains(name, lastApplied) || len(text) > maxAnnotation {
			annotations[name] = sized(v)
		}
	}
}

// maxDepth bounds how deep objects are.
const maxDepth = 100

// redactValues hides what stands under names of secrets.
func redactValues(v any, under string, depth int) any {
	if depth > maxDepth {
		return redact.Hidden
	}
	switch v := v.(type) {
	case map[string]any:
		// {name: X, value: Y}, as environment variables and parameters are written.
		if name, ok := v["name"].(string); ok && redact.IsName(name) {
			for _, field := range []string{"value", "default"} {
				if text, ok := v[field].(string); ok && text != "" {
					v[field] = redact.Hidden
				}
			}
		}
		for key, inner := range v {
			if key == "metadata" || key == "annotations" {
				redactMeta(v)
			}
			v[key] = redactValues(inner, key, depth+1)
		}
		return v
	case []any:
		for i, inner := range v {
			v[i] = redactValues(inner, under, depth+1)
		}
		return v
	case string:
		if v != "" && redact.IsName(under) && !strings.HasPrefix(v, redact.Hidden) {
			return redact.Hidden
		}
	}
	return v
}
