package manifest

import (
	"slices"
	"strings"
)

// IgnoredChanges are the images that only one of the bundles leaves out knowingly.
type IgnoredChanges struct {
	Added   []IgnoredImage `json:"added"`
	Removed []IgnoredImage `json:"removed"`
}

// FileChanges says what became of the files.
type FileChanges struct {
	Added     []File       `json:"added"`
	Removed   []File       `json:"removed"`
	Changed   []FileChange `json:"changed"`
	Unchanged int          `json:"unchanged"`
}

func (c *FileChanges) any() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) > 0 }

// ChangedExecutable is the word for a file that became, or is no longer, a program. The others for
// files are ChangedName and ChangedContent.
const ChangedExecutable = "executable"

// FileChange is a file that differs, or has another name. Changes is made of the words above.
type FileChange struct {
	Changes []string `json:"changes"`
	Old     File     `json:"old"`
	New     File     `json:"new"`
}

// NotesChange are the release notes of both bundles; nil where there are none.
type NotesChange struct {
	Old *Descriptor `json:"old,omitempty"`
	New *Descriptor `json:"new,omitempty"`
}

// RequirementChange is a member of Requires that differs, by its name in JSON. Of lists, Old and New
// have the elements with ", " between them. What is not required is empty.
type RequirementChange struct {
	Name string `json:"name"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// ParameterChanges says what became of the parameters.
type ParameterChanges struct {
	Added     []Parameter       `json:"added"`
	Removed   []Parameter       `json:"removed"`
	Changed   []ParameterChange `json:"changed"`
	Unchanged int               `json:"unchanged"`
}

func (c *ParameterChanges) any() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) > 0 }

// Words for what differs in a parameter. ChangedValues is about the values that receive it.
const (
	ChangedDescription = "description"
	ChangedType        = "type"
	ChangedDefault     = "default"
	ChangedRequired    = "required"
	ChangedSecret      = "secret"
	ChangedPattern     = "pattern"
	ChangedEnum        = "enum"
)

// ParameterChange is a parameter that differs. Changes is made of the words above.
type ParameterChange struct {
	Name    string    `json:"name"`
	Changes []string  `json:"changes"`
	Old     Parameter `json:"old"`
	New     Parameter `json:"new"`
}

func compareIgnored(old, now []IgnoredImage) IgnoredChanges {
	missing := func(list, other []IgnoredImage) []IgnoredImage {
		has := make(map[string]bool, len(other))
		for i := range other {
			has[other[i].Reference] = true
		}
		rest := []IgnoredImage{}
		for i := range list {
			if !has[list[i].Reference] {
				rest = append(rest, list[i])
			}
		}
		return rest
	}
	return IgnoredChanges{Added: missing(now, old), Removed: missing(old, now)}
}

func compareFiles(old, now []File) FileChanges {
	d := FileChanges{}
	d.Added, d.Removed, d.Changed, d.Unchanged = Changes(old, now, func(old, now *File) (FileChange, bool) {
		var c []string
		c = note(c, old.Name != now.Name, ChangedName)
		c = note(c, old.Digest != now.Digest, ChangedContent)
		c = note(c, old.Executable != now.Executable, ChangedExecutable)
		return FileChange{Changes: c, Old: *old, New: *now}, len(c) > 0
	},
		func(f *File) string { return f.Name },
		func(f *File) string { return f.Digest },
	)
	return d
}

func compareNotes(old, now *Descriptor) *NotesChange {
	if same(old, now) {
		return nil
	}
	return &NotesChange{old, now}
}

func compareRequires(old, now *Requires) []RequirementChange {
	none := &Requires{}
	if old == nil {
		old = none
	}
	if now == nil {
		now = none
	}
	// Their order means nothing.
	list := func(l []string) string { return strings.Join(slices.Sorted(slices.Values(l)), ", ") }
	changed := []RequirementChange{}
	for _, c := range []RequirementChange{
		{"kubernetes", old.Kubernetes, now.Kubernetes},
		{"upgradeFrom", old.UpgradeFrom, now.UpgradeFrom},
		{"cpu", old.CPU, now.CPU},
		{"memory", old.Memory, now.Memory},
		{"architectures", list(old.Architectures), list(now.Architectures)},
		{"storageClasses", list(old.StorageClasses), list(now.StorageClasses)},
		{"apiGroups", list(old.APIGroups), list(now.APIGroups)},
	} {
		if c.Old != c.New {
			changed = append(changed, c)
		}
	}
	return changed
}

func compareParameters(old, now []Parameter) ParameterChanges {
	d := ParameterChanges{}
	d.Added, d.Removed, d.Changed, d.Unchanged = Changes(old, now, func(old, now *Parameter) (ParameterChange, bool) {
		c := compareParameter(old, now)
		return ParameterChange{Name: now.Name, Changes: c, Old: *old, New: *now}, len(c) > 0
	}, func(p *Parameter) string { return p.Name })
	return d
}

func compareParameter(old, now *Parameter) []string {
	var c []string
	c = note(c, old.Description != now.Description, ChangedDescription)
	c = note(c, old.Type != now.Type, ChangedType)
	c = note(c, !same(old.Default, now.Default), ChangedDefault)
	c = note(c, old.Required != now.Required, ChangedRequired)
	c = note(c, old.Secret != now.Secret, ChangedSecret)
	c = note(c, old.Pattern != now.Pattern, ChangedPattern)
	c = note(c, !slices.Equal(old.Enum, now.Enum), ChangedEnum)
	c = note(c, !slices.Equal(old.Values, now.Values), ChangedValues)
	return c
}
