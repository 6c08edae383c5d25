package chart

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// scope says whether objects of a kind are in a namespace.
type scope int

const (
	scopeUnknown scope = iota
	scopeNamespaced
	scopeCluster
)

var (
	namespaceKind = schema.GroupKind{Kind: "Namespace"}
	crdKind       = schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
)

// builtinScopes are the scopes of the kinds of Kubernetes itself, by group. Only a
// cluster could tell, and there is none where a bundle is checked.
var builtinScopes = scopeTable(map[string][2][]string{
	"": {
		{
			"Binding", "ConfigMap", "Endpoints", "Event", "LimitRange", "PersistentVolumeClaim", "Pod", "PodTemplate",
			"ReplicationController", "ResourceQuota", "Secret", "Service", "ServiceAccount",
		},
		{"ComponentStatus", "Namespace", "Node", "PersistentVolume"},
	},
	"admissionregistration.k8s.io": {nil, {
		"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "MutatingWebhookConfiguration",
		"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration",
	}},
	"apiextensions.k8s.io":   {nil, {"CustomResourceDefinition"}},
	"apiregistration.k8s.io": {nil, {"APIService"}},
	"apps":                   {{"ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"}, nil},
	"authentication.k8s.io":  {nil, {"SelfSubjectReview", "TokenReview"}},
	"authorization.k8s.io": {
		{"LocalSubjectAccessReview"},
		{"SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview"},
	},
	"autoscaling":                  {{"HorizontalPodAutoscaler"}, nil},
	"batch":                        {{"CronJob", "Job"}, nil},
	"certificates.k8s.io":          {{"PodCertificateRequest"}, {"CertificateSigningRequest", "ClusterTrustBundle"}},
	"coordination.k8s.io":          {{"Lease", "LeaseCandidate"}, nil},
	"discovery.k8s.io":             {{"EndpointSlice"}, nil},
	"events.k8s.io":                {{"Event"}, nil},
	"extensions":                   {{"DaemonSet", "Deployment", "Ingress", "NetworkPolicy", "ReplicaSet"}, nil},
	"flowcontrol.apiserver.k8s.io": {nil, {"FlowSchema", "PriorityLevelConfiguration"}},
	"internal.apiserver.k8s.io":    {nil, {"StorageVersion"}},
	"lifecycle.k8s.io":             {{"EvictionRequest"}, nil},
	"networking.k8s.io":            {{"Ingress", "NetworkPolicy"}, {"IPAddress", "IngressClass", "ServiceCIDR"}},
	"node.k8s.io":                  {nil, {"RuntimeClass"}},
	"policy":                       {{"PodDisruptionBudget"}, {"PodSecurityPolicy"}},
	"rbac.authorization.k8s.io":    {{"Role", "RoleBinding"}, {"ClusterRole", "ClusterRoleBinding"}},
	"resource.k8s.io": {
		{"ResourceClaim", "ResourceClaimTemplate"},
		{"DeviceClass", "DeviceTaintRule", "ResourcePoolStatusRequest", "ResourceSlice"},
	},
	"scheduling.k8s.io": {{"CompositePodGroup", "PodGroup", "Workload"}, {"PriorityClass"}},
	"storage.k8s.io": {
		{"CSIStorageCapacity"},
		{"CSIDriver", "CSINode", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"},
	},
	"storagemigration.k8s.io": {nil, {"StorageVersionMigration"}},
})

// scopeTable makes the table of the namespaced and the cluster-scoped kinds of groups.
func scopeTable(groups map[string][2][]string) map[schema.GroupKind]scope {
	table := map[schema.GroupKind]scope{}
	for group, kinds := range groups {
		for _, kind := range kinds[0] {
			table[schema.GroupKind{Group: group, Kind: kind}] = scopeNamespaced
		}
		for _, kind := range kinds[1] {
			table[schema.GroupKind{Group: group, Kind: kind}] = scopeCluster
		}
	}
	return table
}

// collectScopes notes what CustomResourceDefinitions among the objects say of their
// kinds. They cannot be relied on: the cluster may have another one of that name, and
// Helm leaves it as it is. So they never allow anything; where ClusterScoped is false
// they are refused themselves.
func (c *limitCheck) collectScopes(objects []*unstructured.Unstructured) {
	c.scopes = map[schema.GroupKind]scope{}
	for _, o := range objects {
		if o.GroupVersionKind().GroupKind() != crdKind {
			continue
		}
		group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
		gk := schema.GroupKind{Group: group, Kind: kind}
		switch said, _, _ := unstructured.NestedString(o.Object, "spec", "scope"); said {
		case "Cluster":
			c.scopes[gk] = scopeCluster
		case "Namespaced":
			c.scopes[gk] = scopeNamespaced
		}
	}
	for _, k := range c.limits.NamespacedKinds {
		c.scopes[groupKind(k)] = scopeNamespaced // the site knows better
	}
}

// scopeOf is the scope of a kind, as far as it is known.
func (c *limitCheck) scopeOf(gk schema.GroupKind) scope {
	if s, ok := builtinScopes[gk]; ok {
		return s
	}
	return c.scopes[gk]
}
