package manifest

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

var (
	parameterPattern = lazily(`\A[a-zA-Z][a-zA-Z0-9._-]{0,62}\z`)
	// integerPattern fits into 64 bits.
	integerPattern = lazily(`\A(?:0|-?[1-9][0-9]{0,17})\z`)
	// numberPattern is that of JSON.
	numberPattern = lazily(`\A-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?\z`)
)

// CheckParameterName reports whether s can name a parameter.
func CheckParameterName(s string) error {
	if !parameterPattern().MatchString(s) {
		return fmt.Errorf("parameter name %q is not a letter and letters, digits, dots, dashes and underscores (at most 63)", s)
	}
	return nil
}

// Check reports whether text can be the value of a parameter that the rules of a manifest allow: it
// is of the parameter's type, matches its pattern as a whole, and is one of those that are allowed.
// The errors do not say the values of a secret.
func (p *Parameter) Check(text string) error {
	pattern, err := p.compile()
	if err != nil {
		return err
	}
	return p.check(text, pattern)
}

// Value is what text stands for in the values of a chart: a string, an int64, a float64 or a bool.
// Errors are those of Check.
func (p *Parameter) Value(text string) (any, error) {
	if err := p.Check(text); err != nil {
		return nil, err
	}
	switch p.Type {
	case ParameterInteger:
		return strconv.ParseInt(text, 10, 64)
	case ParameterNumber:
		return strconv.ParseFloat(text, 64)
	case ParameterBoolean:
		return text == "true", nil
	}
	return text, nil
}

// check is Check with the compiled pattern, nil for none.
func (p *Parameter) check(text string, pattern *regexp.Regexp) error {
	shown := fmt.Sprintf("%q", text)
	if p.Secret {
		shown = "the value"
	}
	if err := checkType(p.Type, text); err != nil {
		return fmt.Errorf("%s %w", shown, err)
	}
	if pattern != nil && !pattern.MatchString(text) {
		return fmt.Errorf("%s does not match the pattern %q", shown, p.Pattern)
	}
	if len(p.Enum) > 0 && !slices.Contains(p.Enum, text) {
		return fmt.Errorf("%s is none of %s", shown, strings.Join(p.Enum, ", "))
	}
	return nil
}

// checkType reports whether text is the spelling of a value of one of the types of parameters.
func checkType(kind, text string) error {
	switch kind {
	case ParameterString:
		return nil
	case ParameterInteger:
		if !integerPattern().MatchString(text) {
			return errors.New("is not an integer of at most 18 digits")
		}
		return nil
	case ParameterNumber:
		if !numberPattern().MatchString(text) {
			return errors.New("is not a number such as 1, -0.5 or 1e6")
		}
		return nil
	case ParameterBoolean:
		if text != "true" && text != "false" {
			return errors.New("is neither true nor false")
		}
		return nil
	}
	return fmt.Errorf("is of the unknown type %q", kind)
}

// maxPatternSize bounds what a pattern is compiled to, in instructions: a few bytes can ask for
// millions.
const maxPatternSize = 10000

// compile returns what the pattern demands of the whole text; nil where there is none.
func (p *Parameter) compile() (*regexp.Regexp, error) {
	if p.Pattern == "" {
		return nil, nil
	}
	if p.Type != ParameterString {
		return nil, fmt.Errorf("a pattern for a value of type %q, where only strings have one", p.Type)
	}
	if len(p.Pattern) > MaxPatternBytes || !plain(p.Pattern) {
		return nil, fmt.Errorf("pattern %q holds characters that cannot be shown, or has more than %d bytes", p.Pattern, MaxPatternBytes)
	}
	parsed, err := syntax.Parse(p.Pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", p.Pattern, err)
	}
	if patternSize(parsed) > maxPatternSize {
		return nil, fmt.Errorf("pattern %q repeats too much", p.Pattern)
	}
	r, err := regexp.Compile(`\A(?:` + p.Pattern + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", p.Pattern, err)
	}
	return r, nil
}

// patternSize is about what a pattern is compiled to, in instructions; where it is beyond
// maxPatternSize, any number beyond.
func patternSize(r *syntax.Regexp) int {
	size := 1
	if r.Op == syntax.OpLiteral {
		size = len(r.Rune)
	}
	for _, sub := range r.Sub {
		size += patternSize(sub)
		if size > maxPatternSize {
			return size
		}
	}
	if r.Op == syntax.OpRepeat {
		size *= max(r.Min, r.Max, 1)
	}
	return size
}

func (m *Manifest) validateParameters() error {
	seen := map[string]bool{}
	for i := range m.Parameters {
		p := &m.Parameters[i]
		if err := p.validate(); err != nil {
			return fmt.Errorf("parameter %q: %w", p.Name, err)
		}
		if seen[p.Name] {
			return fmt.Errorf("parameter %q twice", p.Name)
		}
		seen[p.Name] = true
	}
	return m.validateReceivers()
}

func (p *Parameter) validate() error {
	if err := CheckParameterName(p.Name); err != nil {
		return err
	}
	if !plainLines(p.Description) {
		return fmt.Errorf("description %q holds characters that cannot be shown, or is too long", p.Description)
	}
	switch p.Type {
	case ParameterString, ParameterInteger, ParameterNumber, ParameterBoolean:
	default:
		return fmt.Errorf("type %q is none of %q, %q, %q and %q", p.Type, ParameterString, ParameterInteger, ParameterNumber, ParameterBoolean)
	}
	if p.Secret && p.Default != nil {
		return errors.New("a default for a secret, which everybody could read")
	}
	if len(p.Enum) > MaxEnum || len(p.Values) > MaxParameterValues {
		return fmt.Errorf("%d allowed values, received by %d values of charts: at most %d, %d", len(p.Enum), len(p.Values), MaxEnum, MaxParameterValues)
	}
	pattern, err := p.compile()
	if err != nil {
		return err
	}
	for i, text := range p.Enum {
		if !plain(text) {
			return fmt.Errorf("allowed value %q holds characters that cannot be shown, or is too long", text)
		}
		if slices.Contains(p.Enum[:i], text) {
			return fmt.Errorf("allowed value %q twice", text)
		}
		if err := p.check(text, pattern); err != nil {
			return fmt.Errorf("allowed value: %w", err)
		}
	}
	if p.Default == nil {
		return nil
	}
	if !plainLines(*p.Default) {
		return fmt.Errorf("default %q holds characters that cannot be shown, or is too long", *p.Default)
	}
	if err := p.check(*p.Default, pattern); err != nil {
		return fmt.Errorf("default: %w", err)
	}
	return nil
}

// validateReceivers checks the values that receive parameters and registries: each gets one thing, and
// none lies within another one.
func (m *Manifest) validateReceivers() error {
	taken := make(map[string]map[string]bool, len(m.Charts))
	var all [][2]string
	take := func(release, path string) error {
		paths := taken[release]
		if paths == nil {
			return fmt.Errorf("value %q of release %q, which is not in the bundle", path, release)
		}
		if paths[path] {
			return fmt.Errorf("value %q of release %q receives two things", path, release)
		}
		paths[path] = true
		all = append(all, [2]string{release, path})
		return nil
	}
	for i := range m.Charts {
		c := &m.Charts[i]
		taken[c.Key()] = map[string]bool{}
		for _, v := range c.RegistryValues {
			if err := take(c.Key(), v.Path); err != nil {
				return err
			}
		}
	}
	for i := range m.Parameters {
		for _, v := range m.Parameters[i].Values {
			if err := CheckValuePath(v.Path); err != nil {
				return fmt.Errorf("parameter %q: %w", m.Parameters[i].Name, err)
			}
			if err := take(v.Release, v.Path); err != nil {
				return fmt.Errorf("parameter %q: %w", m.Parameters[i].Name, err)
			}
		}
	}
	for _, v := range all {
		release, path := v[0], v[1]
		for at := 0; at < len(path); at++ {
			switch {
			case path[at] == '\\':
				at++
			case path[at] == '.' && taken[release][path[:at]]:
				return fmt.Errorf("value %q of release %q lies within %q, which receives something, too", path, release, path[:at])
			}
		}
	}
	return nil
}
