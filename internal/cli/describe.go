package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// How the members of a manifest are shown to people.

func writeRequires(w io.Writer, r *manifest.Requires) {
	if r == nil {
		return
	}
	fmt.Fprintln(w, "\nrequires")
	for _, l := range []struct{ what, value string }{
		{"kubernetes", r.Kubernetes},
		{"upgrade from", r.UpgradeFrom},
		{"cpu", r.CPU},
		{"memory", r.Memory},
		{"nodes", strings.Join(r.Architectures, ", ")},
		{"storage", strings.ReplaceAll(strings.Join(r.StorageClasses, ", "), "*", "a default class")},
		{"apis", strings.Join(r.APIGroups, ", ")},
	} {
		if l.value != "" {
			fmt.Fprintf(w, "  %-12s  %s\n", l.what, l.value)
		}
	}
}

func writeParameter(w io.Writer, p *manifest.Parameter) {
	fmt.Fprintf(w, "\nparameter %s (%s)%s\n", p.Name, strings.Join(traits(p), ", "), described(p.Description))
	for _, v := range p.Values {
		fmt.Fprintf(w, "  sets %s of release %s\n", v.Path, v.Release)
	}
}

// traits are what a site has to know to set a parameter.
func traits(p *manifest.Parameter) []string {
	t := []string{p.Type}
	if p.Required {
		t = append(t, "required")
	}
	if p.Secret {
		t = append(t, "secret")
	}
	if p.Default != nil {
		t = append(t, fmt.Sprintf("default %q", *p.Default))
	}
	if p.Pattern != "" {
		t = append(t, "matching "+p.Pattern)
	}
	if len(p.Enum) > 0 {
		t = append(t, "one of "+strings.Join(p.Enum, ", "))
	}
	return t
}

func writeChart(w io.Writer, ch *manifest.Chart) {
	if ch.Plain {
		fmt.Fprintf(w, "\nobjects %s -> release %s in namespace %s\n", ch.Name, ch.Release, ch.Namespace)
	} else {
		fmt.Fprintf(w, "\nchart %s %s -> release %s in namespace %s\n", ch.Name, ch.Version, ch.Release, ch.Namespace)
	}
	fmt.Fprintf(w, "  %s  %s\n", ch.Archive.Digest, archive.FormatBytes(ch.Archive.Size))
	line := func(format string, a ...any) { fmt.Fprintf(w, "  "+format+"\n", a...) }
	if ch.Source != "" {
		line("from %s", ch.Source)
	}
	if ch.SignedBy != "" {
		line("its provenance was proven with OpenPGP key %s", ch.SignedBy)
	}
	if n := len(ch.Referrers); n > 0 {
		line("with %s about it (signatures and the like)", count(n, "artifact"))
	}
	if len(ch.DependsOn) > 0 {
		line("after %s", strings.Join(ch.DependsOn, ", "))
	}
	for i := range ch.Environments {
		line("environment %s: %s", ch.Environments[i].Name, environmentFiles(&ch.Environments[i], func(v manifest.ValuesFile) string { return v.Name }))
	}
	for _, rv := range ch.RegistryValues {
		line("value %s gets the site's %s", rv.Path, map[string]string{
			manifest.RegistryWhole: "registry", manifest.RegistryHost: "registry, without prefix", manifest.RegistryPrefix: "prefix in the registry",
		}[rv.Gets])
	}
	if ch.Rollback != "" {
		line("going back: %s", ch.Rollback)
	}
	if r := ch.Rollout; r != nil {
		line("rollout: %s by %s %s%s", r.Strategy, r.Front.Kind, r.Front.Name, steps(r.Steps))
	}
	for i := range ch.Checks {
		line("check %s", describeCheck(&ch.Checks[i]))
	}
}

// environmentFiles lists the values files of an environment.
func environmentFiles(e *manifest.Environment, text func(manifest.ValuesFile) string) string {
	if e == nil {
		return ""
	}
	var names []string
	for _, v := range e.Values {
		names = append(names, text(v))
	}
	return strings.Join(names, ", ")
}

func steps(percent []int) string {
	if len(percent) == 0 {
		return ""
	}
	return " in steps of " + strings.Trim(strings.ReplaceAll(fmt.Sprint(percent), " ", ", "), "[]") + " %"
}

func writeImage(w io.Writer, what string, img *manifest.Image) {
	fmt.Fprintf(w, "\n%s %s\n", what, img.Source)
	if img.ArtifactType != "" {
		fmt.Fprintf(w, "  %s  %s\n", img.Digest, img.ArtifactType)
	} else {
		fmt.Fprintf(w, "  %s  %s\n", img.Digest, strings.Join(img.Platforms, ", "))
	}
	if img.Derived != nil {
		fmt.Fprintf(w, "  only these platforms travel; index of only them: %s\n", img.Derived.Digest)
	}
	for _, s := range img.SignedBy {
		fmt.Fprintf(w, "  must be signed by %s\n", verify.DescribeSigner(s))
	}
	if n := len(img.Referrers); n > 0 {
		fmt.Fprintf(w, "  with %s about it (signatures and the like)\n", count(n, "artifact"))
	}
	if img.ReferrersDropped {
		fmt.Fprintln(w, "  without its signatures and the like: the vendor left them behind")
	}
	writeReasons(w, img.Reasons)
}

func writeIgnored(w io.Writer, i *manifest.IgnoredImage) {
	fmt.Fprintf(w, "\nleft out: %s\n", i.Reference)
	fmt.Fprintf(w, "  by the vendor's pattern %s%s\n", i.Pattern, described(i.Why))
	writeReasons(w, i.Reasons)
}

func writeReasons(w io.Writer, reasons []manifest.Reason) {
	for i := range reasons {
		of := "of "
		if reasons[i].Kind == manifest.ReasonSpec {
			of = ""
		}
		fmt.Fprintf(w, "  because %s%s\n", of, reason(&reasons[i]))
	}
}
