package chart

import (
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// maxReference bounds what is tried as a reference: 255 bytes of name, a tag of 128 and a digest.
const maxReference = 512

// imageReference is what counts of a text that parses as a reference.
type imageReference struct {
	// host is the registry that the text itself names, empty where it names none.
	host string
	// named says that there is a tag or a digest.
	named bool
}

// complete says that a text tells all: registry, and tag or digest.
func (r imageReference) complete() bool { return r.host != "" && r.named }

// parseImage reads a reference as Kubernetes does. What can be nothing but a file or a word of
// configuration is none.
func parseImage(s string) (imageReference, bool) {
	if s == "" || len(s) > maxReference || !isAlnum(s[0]) {
		return imageReference{}, false
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return imageReference{}, false
	}
	var r imageReference
	if first, _, ok := strings.Cut(s, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		r.host = first
	}
	_, tagged := named.(reference.Tagged)
	digested, ok := named.(reference.Digested)
	if ok && digested.Digest().Algorithm() != "sha256" {
		return imageReference{}, false
	}
	r.named = tagged || ok
	return r, true
}

// plausible is parseImage for texts whose place only suggests an image.
func plausible(s string) (imageReference, bool) {
	r, ok := parseImage(s)
	if !ok || slices.Contains(noImages, s) || !strings.ContainsFunc(s, isLower) {
		return r, false
	}
	for _, ending := range fileEndings {
		if strings.HasSuffix(s, ending) {
			return r, false
		}
	}
	return r, true
}

// noImages are words that settings about images have and that parse as references.
var noImages = []string{
	"true", "false", "yes", "no", "on", "off", "none", "null", "nil", "auto", "default", "latest", "stable",
	"enabled", "disabled", "always", "never", "ifnotpresent", "image", "string", "object", "custom", "inherit",
}

// fileEndings are those of files that people call images, and of other files.
var fileEndings = []string{
	".png", ".jpg", ".jpeg", ".svg", ".gif", ".ico", ".webp", ".bmp", ".tif", ".tiff", ".avif",
	".iso", ".img", ".qcow2", ".raw", ".vmdk", ".vhd", ".ova", ".tar", ".tgz", ".gz", ".xz", ".zip",
	".yaml", ".yml", ".json", ".html", ".js", ".css", ".sh", ".py", ".go", ".md", ".txt",
}

// publicHosts are well known public registries; those that begin with a dot stand for all below.
var publicHosts = []string{
	"docker.io", "index.docker.io", "registry-1.docker.io", "ghcr.io", "quay.io", "gcr.io", ".gcr.io", "registry.k8s.io",
	"mcr.microsoft.com", "public.ecr.aws", ".azurecr.io", ".pkg.dev", "nvcr.io", "registry.gitlab.com", "cgr.dev", "dhi.io",
	"registry.redhat.io", "registry.access.redhat.com", "registry.connect.redhat.com", "registry.fedoraproject.org",
	"registry.suse.com", "registry.opensuse.org", "registry.rancher.com", "docker.elastic.co", "container-registry.oracle.com",
	"icr.io", ".icr.io", ".ocir.io", "cr.l5d.io", "lscr.io", "reg.kyverno.io", "oci.external-secrets.io", "cr.fluentbit.io",
	"registry.developers.crunchydata.com", "docker.redpanda.com", "docker.dragonflydb.io", "registry.hub.docker.com",
	"docker.n8n.io", "xpkg.upbound.io", "xpkg.crossplane.io", "registry.opensource.zalan.do", "projects.registry.vmware.com",
	"projects.packages.broadcom.com", "releases-docker.jfrog.io", "docker.stackable.tech", "oci.stackable.tech",
	"dp.apps.rancher.io", "registry.camunda.cloud", "cr.weaviate.io", ".docker.scarf.sh",
}

// isPublicHost says that a host is a well known public registry.
func isPublicHost(host string) bool {
	for _, known := range publicHosts {
		if host == known || known[0] == '.' && strings.HasSuffix(host, known) {
			return true
		}
	}
	aws := strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
	return aws && strings.Contains(host, ".dkr.ecr.")
}

// saysImage says that a name, of a field, flag or variable, is one of an image.
func saysImage(name string) bool {
	name = strings.ToLower(strings.Trim(name, `-_. `))
	for _, ending := range imageEndings {
		if strings.HasSuffix(name, ending) {
			return true
		}
	}
	return slices.Contains(imageNames, name)
}

var imageEndings = []string{
	"image", "imagename", "image_name", "image-name", "imageref", "image_ref", "image-ref", "image_reference", "imagereference",
	"_img", "-img",
}

// imageNames are options and variables of widely used operators that are images and do not say so.
var imageNames = []string{"prometheus-config-reloader", "strimzi_default_maven_builder"}

// saysImages says that a name is one of several images.
func saysImages(name string) bool {
	return strings.HasSuffix(strings.ToLower(strings.Trim(name, `-_. `)), "images")
}

// mentionsImage says that a name has to do with images.
func mentionsImage(name string) bool { return strings.Contains(strings.ToLower(name), "image") }

// word is a part of a text that may be a reference.
type word struct {
	start, end int
	// near is the name right before it, as in "image: REF", "--image=REF" and "--image REF".
	near string
}

// eachWord calls f for every part of a text that has the letters of references and a separator of
// one. Parts of addresses, paths and of what a template has left open are left out.
func eachWord(s string, f func(word)) {
	for i := 0; i < len(s); {
		if !isReferenceByte(s[i]) {
			i++
			continue
		}
		start, separators := i, false
		for i < len(s) && isReferenceByte(s[i]) {
			separators = separators || s[i] == '/' || s[i] == ':' || s[i] == '@'
			i++
		}
		if !separators || i-start < 3 || open(s, start, i) {
			continue
		}
		end := i
		// Docker's own scheme is how disk images are named that registries hold.
		start += len(s[start:end]) - len(strings.TrimPrefix(s[start:end], "docker://"))
		for end > start && strings.IndexByte(".:,", s[end-1]) >= 0 {
			end-- // the end of a sentence
		}
		if start >= end || strings.Contains(s[start:end], "//") || !strings.ContainsAny(s[start:end], "/:@") {
			continue
		}
		f(word{start, end, nameBefore(s, start)})
	}
}

// open says that what a template left open, or the rest of an address, touches s[start:end].
func open(s string, start, end int) bool {
	if start > 0 {
		switch s[start-1] {
		case '$', '}', '%', '~', '#', '?', '&', '\\', '+':
			return true
		case '{', '(':
			if start > 1 && (s[start-2] == '$' || s[start-2] == '{') {
				return true
			}
		}
	}
	if end < len(s) {
		switch s[end] {
		case '$', '{', '%', '~', '?', '+', '*':
			return true
		case '(':
			return end+1 < len(s) && s[end+1] != ' '
		}
	}
	return false
}

// nameBefore is the name that a separator joins to what begins at an offset.
func nameBefore(s string, at int) string {
	end := at
	equals := false
	for end > 0 && at-end < 8 && strings.IndexByte(" \t\"'=:", s[end-1]) >= 0 {
		end--
		equals = equals || s[end] == '=' || s[end] == ':'
	}
	begin := end
	for begin > 0 && end-begin < 128 && (isAlnum(s[begin-1]) || strings.IndexByte("-_.", s[begin-1]) >= 0) {
		begin--
	}
	if begin == end || end == at || !equals && s[begin] != '-' {
		return ""
	}
	return s[begin:end]
}

func isReferenceByte(c byte) bool {
	return isAlnum(c) || c == '.' || c == '_' || c == '-' || c == '/' || c == ':' || c == '@'
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func isLower(r rune) bool { return r >= 'a' && r <= 'z' }
