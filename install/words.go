package install

import (
	"encoding/json"
	"fmt"
)

// Words are what a target is made from, for those who go on with a transaction later.
func (t Target) Words() map[string]string {
	w := map[string]string{"registry": t.Registry, "prefix": t.Prefix, "mapping": string(t.Names.mapping())}
	if texts := t.Names.Texts(); len(texts) > 0 {
		// A list of texts can always be written.
		raw, _ := json.Marshal(texts)
		w["map"] = string(raw)
	}
	return w
}

// ReadTarget makes the target of words that [Target.Words] has given. Without any, it is the zero value: the images have the
// vendor's names. Errors are *TargetError, *RuleError, or about words that nobody has given.
func ReadTarget(words map[string]string) (Target, error) {
	if words["registry"] == "" {
		return Target{}, nil
	}
	text := words["registry"]
	if words["prefix"] != "" {
		text += "/" + words["prefix"]
	}
	t, err := ParseTarget(text)
	if err != nil {
		return Target{}, err
	}
	if t.Names.Mapping, err = ParseMapping(words["mapping"]); err != nil {
		return Target{}, err
	}
	if words["map"] == "" {
		return t, nil
	}
	var texts []string
	if err := json.Unmarshal([]byte(words["map"]), &texts); err != nil {
		return Target{}, fmt.Errorf("reading the names of images in registry %q: %w", text, err)
	}
	for _, text := range texts {
		rule, err := ParseRule(text)
		if err != nil {
			return Target{}, err
		}
		t.Names.Rules = append(t.Names.Rules, rule)
	}
	return t, nil
}
