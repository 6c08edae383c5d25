package install

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/ledger"
)

// MaxPlanBytes bounds a plan, in bytes of JSON.
const MaxPlanBytes = 16 << 20

// PlanError says that a document is not a plan.
type PlanError struct{ Err error }

// Error says why.
func (e *PlanError) Error() string { return "reading a plan: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *PlanError) Unwrap() error { return e.Err }

// Encode writes a plan as it is kept: JSON with a line for each member, which [ReadPlan] reads. An error says that it is larger
// than MaxPlanBytes.
func (p *Plan) Encode() ([]byte, error) {
	c := *p
	c.MediaType = PlanMediaType
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(&c); err != nil {
		return nil, fmt.Errorf("encoding the plan of bundle %q: %w", p.Bundle, err)
	}
	if out.Len() > MaxPlanBytes {
		return nil, fmt.Errorf("encoding the plan of bundle %q: it has %d bytes, at most %d are allowed", p.Bundle, out.Len(), MaxPlanBytes)
	}
	return out.Bytes(), nil
}

// Digest is "sha256:…" of what Encode writes.
func (p *Plan) Digest() (string, error) {
	raw, err := p.Encode()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// ReadPlan reads a plan that Encode has written, byte for byte: what was changed by hand is none. Errors are *[PlanError].
func ReadPlan(raw []byte) (*Plan, error) {
	p, err := readPlan(raw)
	if err != nil {
		return nil, &PlanError{err}
	}
	return p, nil
}

func readPlan(raw []byte) (*Plan, error) {
	if len(raw) > MaxPlanBytes {
		return nil, fmt.Errorf("it has %d bytes, at most %d are allowed", len(raw), MaxPlanBytes)
	}
	if got := firstMember(raw, "mediaType"); got != PlanMediaType {
		return nil, fmt.Errorf("it begins with the media type %q, want %q", got, PlanMediaType)
	}
	if err := ledger.CheckObjects(raw); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var p Plan
	if err := d.Decode(&p); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one document")
	}
	switch again, err := p.Encode(); {
	case err != nil:
		return nil, err
	case !bytes.Equal(again, raw):
		return nil, errors.New("it is not as it was written: somebody has changed it")
	}
	return &p, p.validate()
}

// firstMember is the text of the first member of a JSON object, if it is called so.
func firstMember(raw []byte, name string) string {
	d := json.NewDecoder(bytes.NewReader(raw))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return ""
	}
	if key, err := d.Token(); err != nil || key != name {
		return ""
	}
	value, err := d.Token()
	text, ok := value.(string)
	if err != nil || !ok {
		return ""
	}
	return text
}

func (p *Plan) validate() error {
	switch {
	case p.Bundle == "" || p.Version == "" || p.Manifest == "":
		return errors.New("it does not say which bundle it is for")
	case p.Cluster == "" && len(p.Releases) > 0:
		return errors.New("it was made without a cluster, and cannot be followed in one")
	}
	seen := map[string]bool{}
	for i := range p.Releases {
		r := &p.Releases[i]
		if seen[r.Key()] {
			return fmt.Errorf("release %q is in it twice", r.Key())
		}
		seen[r.Key()] = true
		if r.Digest == "" {
			return fmt.Errorf("release %q has no digest", r.Key())
		}
	}
	for i := range p.Steps {
		for _, after := range p.Steps[i].After {
			if after < 0 || after >= i {
				return fmt.Errorf("step %d comes after step %d", i+1, after+1)
			}
		}
	}
	return nil
}

// PlanDifference is something that is not as it was when a plan was made.
type PlanDifference struct {
	What string `json:"what"`
	Was  string `json:"was"`
	Is   string `json:"is"`
}

// PlanChangedError says that a plan cannot be followed any more.
type PlanChangedError struct{ Differences []PlanDifference }

// Error lists what differs.
func (e *PlanChangedError) Error() string {
	text := "what would be done now is not what the plan says:"
	for i, d := range e.Differences {
		if i == maxListed {
			return text + fmt.Sprintf("\n  and %d more", len(e.Differences)-i)
		}
		text += fmt.Sprintf("\n  %s: planned %s, now %s", d.What, cmp.Or(d.Was, "nothing"), cmp.Or(d.Is, "nothing"))
	}
	return text
}

// Matches compares a plan with what would be planned now: bundle, cluster, registry, what the site says, what is installed, and for
// each release what is done, from which revision, and with which objects, and the flags that take what is others'. What is said for people only (transfers, differences,
// impact) may have changed. Errors are *[PlanChangedError].
func (p *Plan) Matches(now *Plan) error {
	e := &PlanChangedError{}
	add := func(what, was, is string) {
		if was != is {
			e.Differences = append(e.Differences, PlanDifference{what, was, is})
		}
	}
	add("bundle", p.Bundle, now.Bundle)
	add("version", p.Version, now.Version)
	add("manifest", p.Manifest, now.Manifest)
	add("cluster", p.Cluster, now.Cluster)
	add("registry", p.Registry, now.Registry)
	add("rendering", p.Rendering.text(), now.Rendering.text())
	add("environment", p.Environment, now.Environment)
	add("installed version", p.Replaces, now.Replaces)
	add("changes of the bundle's state", fmt.Sprint(p.Serial), fmt.Sprint(now.Serial))
	add("removal of dropped releases", fmt.Sprint(p.RemoveDropped), fmt.Sprint(now.RemoveDropped))
	add("tests of charts", fmt.Sprint(p.Test), fmt.Sprint(now.Test))
	add("taking over of fields of others (--take-over)", fmt.Sprint(p.TakeOver), fmt.Sprint(now.TakeOver))
	add("taking over of releases and objects of others (--adopt)", fmt.Sprint(p.Adopt), fmt.Sprint(now.Adopt))
	add("steps", stepsText(p.Steps), stepsText(now.Steps))
	matchParameters(p.Parameters, now.Parameters, add)
	matchDropped(p.Dropped, now.Dropped, add)
	is := map[string]*ReleasePlan{}
	for i := range now.Releases {
		is[now.Releases[i].Key()] = &now.Releases[i]
	}
	for i := range p.Releases {
		was := &p.Releases[i]
		r := is[was.Key()]
		if r == nil {
			add("release "+was.Key(), was.Action, "")
			continue
		}
		delete(is, was.Key())
		was.match(r, add)
	}
	for i := range now.Releases {
		if r := &now.Releases[i]; is[r.Key()] != nil {
			add("release "+r.Key(), "", r.Action)
		}
	}
	if len(e.Differences) > 0 {
		return e
	}
	return nil
}

func (r *RenderingPlan) text() string {
	if r == nil {
		return ""
	}
	text := "pins " + string(r.Pin)
	if r.NoRewrite {
		text += ", no rewriting"
	}
	if len(r.PullSecrets) > 0 {
		text += ", pull secrets " + strings.Join(r.PullSecrets, ", ")
	}
	if len(r.ConfigMaps) > 0 {
		text += ", ConfigMaps " + strings.Join(r.ConfigMaps, ", ")
	}
	return text
}

// match compares what binds of one release.
func (p *ReleasePlan) match(now *ReleasePlan, add func(what, was, is string)) {
	key := "release " + p.Key()
	add(key+", action", p.Action, now.Action)
	add(key+", name in Helm", p.As, now.As)
	add(key+", chart", p.Chart+" "+p.Version, now.Chart+" "+now.Version)
	from := func(r *ReleasePlan) string {
		if r.From == nil {
			return ""
		}
		return fmt.Sprintf("revision %d (%s %s)", r.From.Revision, r.From.Chart, r.From.Version)
	}
	add(key+", installed", from(p), from(now))
	add(key+", objects", p.Digest, now.Digest)
	add(key+", points of no return", strings.Join(p.NoReturn, "; "), strings.Join(now.NoReturn, "; "))
	add(key+", backup", strings.Join(p.Backup, ", "), strings.Join(now.Backup, ", "))
	add(key+", restore", strings.Join(p.Restore, ", "), strings.Join(now.Restore, ", "))
}

func matchParameters(was, now []Said, add func(what, was, is string)) {
	text := func(list []Said, name string) string {
		i := slices.IndexFunc(list, func(s Said) bool { return s.Name == name })
		switch {
		case i < 0:
			return ""
		case list[i].Secret && list[i].From != "":
			return "a secret of " + list[i].From
		case list[i].Secret:
			return "a secret"
		}
		return fmt.Sprintf("%q", list[i].Value)
	}
	for _, s := range was {
		add("parameter "+s.Name, text(was, s.Name), text(now, s.Name))
	}
	for _, s := range now {
		if text(was, s.Name) == "" {
			add("parameter "+s.Name, "", text(now, s.Name))
		}
	}
}

// stepsText is what is done to which releases, in which order.
func stepsText(steps []PlannedStep) string {
	list := make([]string, 0, len(steps))
	for i := range steps {
		list = append(list, steps[i].Kind+" "+steps[i].Release)
	}
	return strings.Join(list, ", ")
}

func matchDropped(was, now []DroppedRelease, add func(what, was, is string)) {
	text := func(list []DroppedRelease) string {
		var all []string
		for _, d := range list {
			all = append(all, fmt.Sprintf("%s %s/%s revision %d", d.Action, d.Namespace, d.Release, d.Revision))
		}
		return strings.Join(all, ", ")
	}
	add("releases that the bundle has no more", text(was), text(now))
}
