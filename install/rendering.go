package install

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sealift/sealift/manifest"
)

// Rendering is how rendered objects are changed before they reach the cluster. The zero value is what is best for most.
type Rendering struct {
	// Pin says how references are pinned.
	Pin Pin
	// NoRewrite leaves all references as the vendor wrote them, for nodes that have mirrors.
	NoRewrite bool
	// PullSecrets are names of Secrets that pods and service accounts get as imagePullSecrets.
	PullSecrets []string
	// ConfigMaps are the ConfigMaps, as "NAMESPACE/NAME", in whose texts whole references are rewritten, too.
	ConfigMaps []string
	// Autoscaled are what an autoscaler of the cluster scales, as "NAMESPACE/KIND/NAME": their replicas are left out.
	// It is found out each time, and not among the words.
	Autoscaled map[string]bool
}

// Pin is how references are pinned.
type Pin string

// Pins. The empty one is PinDigest.
const (
	// PinDigest writes NAME:TAG@DIGEST.
	PinDigest Pin = "digest"
	// PinTag writes NAME:TAG.
	PinTag Pin = "tag"
	// PinBare writes NAME@DIGEST.
	PinBare Pin = "bare-digest"
)

// ParsePin reads a pin; the empty text is the empty pin.
func ParsePin(text string) (Pin, error) {
	if p := Pin(text); text == "" || slices.Contains([]Pin{PinDigest, PinTag, PinBare}, p) {
		return p, nil
	}
	return "", fmt.Errorf("pin %q is none of %s, %s, %s", text, PinDigest, PinTag, PinBare)
}

// pinned is a reference NAME:TAG@DIGEST as it is to be written. What has no tag keeps its digest. inParts says that a
// chart puts it together from parts, of which most have a place for a tag, and few one for a digest.
func (r Rendering) pinned(reference string, inParts bool) string {
	name, digest, whole := strings.Cut(reference, "@")
	if !whole {
		return reference
	}
	path, _, tagged := cutTag(name)
	switch {
	case r.Pin == PinTag && tagged:
		return name
	case r.Pin == PinBare && !inParts:
		return path + "@" + digest
	}
	return reference
}

// cutTag takes the tag off a name.
func cutTag(name string) (path, tag string, tagged bool) {
	// A port is followed by a slash.
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:], true
	}
	return name, "", false
}

// Limits of a Rendering.
const (
	maxPullSecrets = 16
	maxConfigMaps  = 256
)

// Check reports whether names are what they must be, and none is there twice.
func (r Rendering) Check() error {
	if _, err := ParsePin(string(r.Pin)); err != nil {
		return err
	}
	if len(r.PullSecrets) > maxPullSecrets || len(r.ConfigMaps) > maxConfigMaps {
		return fmt.Errorf("%d pull secrets and %d ConfigMaps: at most %d, %d", len(r.PullSecrets), len(r.ConfigMaps), maxPullSecrets, maxConfigMaps)
	}
	for i, name := range r.PullSecrets {
		if !isObjectName(name) {
			return fmt.Errorf("pull secret %q is no name of a Secret", name)
		}
		if slices.Contains(r.PullSecrets[:i], name) {
			return fmt.Errorf("pull secret %q twice", name)
		}
	}
	for i, name := range r.ConfigMaps {
		namespace, object, both := strings.Cut(name, "/")
		if !both || manifest.CheckNamespace(namespace) != nil || !isObjectName(object) {
			return fmt.Errorf("ConfigMap %q is not written as NAMESPACE/NAME", name)
		}
		if slices.Contains(r.ConfigMaps[:i], name) {
			return fmt.Errorf("ConfigMap %q twice", name)
		}
	}
	if r.NoRewrite && len(r.ConfigMaps) > 0 {
		return errors.New("ConfigMaps are to be rewritten, and nothing is rewritten")
	}
	return nil
}

// The words of a Rendering.
const (
	wordPin         = "pin"
	wordNoRewrite   = "noRewrite"
	wordPullSecrets = "pullSecrets"
	wordConfigMaps  = "configMaps"
)

// Words are what a rendering is made from, for those who go on with a transaction later; nil for the zero value.
func (r Rendering) Words() map[string]string {
	w := map[string]string{}
	if r.Pin != "" {
		w[wordPin] = string(r.Pin)
	}
	if r.NoRewrite {
		w[wordNoRewrite] = "true"
	}
	// No name has a comma.
	if len(r.PullSecrets) > 0 {
		w[wordPullSecrets] = strings.Join(r.PullSecrets, ",")
	}
	if len(r.ConfigMaps) > 0 {
		w[wordConfigMaps] = strings.Join(r.ConfigMaps, ",")
	}
	if len(w) == 0 {
		return nil
	}
	return w
}

// ReadRendering makes the rendering of words that [Rendering.Words] has given. Errors are about words that nobody has
// given.
func ReadRendering(words map[string]string) (Rendering, error) {
	var r Rendering
	for word, text := range words {
		switch word {
		case wordPin:
			r.Pin = Pin(text)
		case wordNoRewrite:
			if text != "true" {
				return Rendering{}, fmt.Errorf("rendering: %s is %q", word, text)
			}
			r.NoRewrite = true
		case wordPullSecrets:
			r.PullSecrets = strings.Split(text, ",")
		case wordConfigMaps:
			r.ConfigMaps = strings.Split(text, ",")
		default:
			return Rendering{}, fmt.Errorf("rendering: unknown word %q", word)
		}
	}
	if err := r.Check(); err != nil {
		return Rendering{}, fmt.Errorf("rendering: %w", err)
	}
	return r, nil
}
