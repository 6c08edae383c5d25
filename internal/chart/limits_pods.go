package chart

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/pod-security-admission/api"
)

// judgedFields are the fields of a pod that the Pod Security Standards speak of. The
// others may be anything in a custom resource.
var judgedFields = []string{
	"containers", "initContainers", "ephemeralContainers", "volumes", "securityContext",
	"hostNetwork", "hostPID", "hostIPC", "hostUsers", "os",
}

// pods holds every pod of an object against a level.
func (c *limitCheck) pods(object string, level api.Level, o *unstructured.Unstructured) {
	podSpecs(o.Object, nil, "", func(spec, metadata map[string]any, path string, whole bool) {
		at := level
		if !whole {
			// What "restricted" demands beyond "baseline" is said by the containers, which
			// are somewhere else.
			at = api.LevelBaseline
		}
		var pod corev1.PodSpec
		var meta metav1.ObjectMeta
		err := protect(func() error {
			judged := map[string]any{}
			for _, key := range judgedFields {
				if v, ok := spec[key]; ok {
					judged[key] = v
				}
			}
			// Case counts here, as in a cluster and other than in encoding/json.
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(judged, &pod); err != nil {
				return err
			}
			annotations, _, err := unstructured.NestedStringMap(metadata, "annotations")
			meta.Annotations = annotations
			return err
		})
		if err != nil {
			c.report(object, RulePodSecurity, fmt.Sprintf("the pod at %s cannot be judged: %v", path, err))
			return
		}
		for _, r := range c.checks.EvaluatePod(api.LevelVersion{Level: at, Version: api.LatestVersion()}, &meta, &pod) {
			if r.Allowed {
				continue
			}
			detail := fmt.Sprintf("the pod at %s is not %q: %s", path, level, r.ForbiddenReason)
			if r.ForbiddenDetail != "" {
				detail += " (" + r.ForbiddenDetail + ")"
			}
			c.report(object, RulePodSecurity, detail)
		}
	})
}

// podSpecs calls f for every mapping of n that is the spec of a pod, in the order of the
// keys, with the metadata beside it. A mapping is one if it has a list of containers, as
// for [FindImages]. One that has none but asks for a namespace of the host, or for a
// volume that is a path of the host, is a part of one: whole is false.
func podSpecs(n any, metadata map[string]any, path string, f func(spec, metadata map[string]any, path string, whole bool)) {
	switch n := n.(type) {
	case map[string]any:
		whole := hasMapping(n["containers"]) || hasMapping(n["initContainers"]) || hasMapping(n["ephemeralContainers"])
		if whole || asksForHost(n) {
			f(n, metadata, path, whole)
		}
		beside, _ := n["metadata"].(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(n)) {
			podSpecs(n[key], beside, join(path, key), f)
		}
	case []any:
		for i, item := range n {
			podSpecs(item, nil, path+"["+strconv.Itoa(i)+"]", f)
		}
	}
}

func hasMapping(list any) bool {
	items, _ := list.([]any)
	return slices.ContainsFunc(items, func(item any) bool {
		_, ok := item.(map[string]any)
		return ok
	})
}

func asksForHost(n map[string]any) bool {
	for _, key := range []string{"hostNetwork", "hostPID", "hostIPC"} {
		if n[key] == true {
			return true
		}
	}
	volumes, _ := n["volumes"].([]any)
	return slices.ContainsFunc(volumes, func(v any) bool {
		volume, _ := v.(map[string]any)
		return volume["hostPath"] != nil
	})
}
