package chart

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

const pullSecretsKey = "imagePullSecrets"

// AddPullSecrets adds Secrets, by their names, to the imagePullSecrets of the pods, pod templates and service
// accounts of Kubernetes itself in rendered documents. Those that are there already stay, in their order and
// before the others; none is added twice. What custom resources are made into is left alone: they may
// not have such a field. Errors are *[ManifestError].
func AddPullSecrets(docs []byte, names []string) ([]byte, error) {
	if len(names) == 0 {
		return docs, nil
	}
	s, err := parseStream(docs)
	if err != nil {
		return nil, err
	}
	lines := newLineIndex(docs)
	for i, doc := range s.docs {
		err := doc.objects(func(object *yaml.Node) error {
			holder := pullSecretsHolder(object)
			if holder == nil || holder.Kind != yaml.MappingNode || len(holder.Content) == 0 {
				return nil
			}
			if err := doc.addPullSecrets(lines, holder, names); err != nil {
				return &ManifestError{Document: i + 1, Line: holder.Line, Err: fmt.Errorf("adding pull secrets to %s: %w", objectName(object), err)}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return s.text()
}

// pullSecretsHolder is the mapping of an object that has its imagePullSecrets: the spec of its pods, or a service
// account itself; nil for none.
func pullSecretsHolder(object *yaml.Node) *yaml.Node {
	var path []string
	switch text(field(object, "apiVersion")) + "/" + text(field(object, "kind")) {
	case "v1/ServiceAccount":
		return object
	case "v1/Pod":
		path = []string{"spec"}
	case "v1/PodTemplate":
		path = []string{"template", "spec"}
	case "v1/ReplicationController", "apps/v1/Deployment", "apps/v1/StatefulSet", "apps/v1/DaemonSet", "apps/v1/ReplicaSet", "batch/v1/Job":
		path = []string{"spec", "template", "spec"}
	case "batch/v1/CronJob":
		path = []string{"spec", "jobTemplate", "spec", "template", "spec"}
	default:
		return nil
	}
	at := object
	for _, key := range path {
		at = field(at, key)
	}
	return at
}

func (d *document) addPullSecrets(lines *lineIndex, holder *yaml.Node, names []string) error {
	list := field(holder, pullSecretsKey)
	var missing []*yaml.Node
	for _, name := range names {
		there := list != nil && slices.ContainsFunc(list.Content, func(item *yaml.Node) bool { return text(field(item, "name")) == name })
		if !there {
			missing = append(missing, &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{str("name"), str(name)}})
		}
	}
	switch {
	case len(missing) == 0:
	case list == nil:
		d.insert(lines, holder, pullSecretsKey, &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: missing})
	case isNull(list):
		*list = yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: missing}
		d.changed, d.reencode = true, true
	case list.Kind != yaml.SequenceNode:
		return fmt.Errorf("%s is no list", pullSecretsKey)
	default:
		list.Content = append(list.Content, missing...)
		d.changed, d.reencode = true, true
	}
	return nil
}
