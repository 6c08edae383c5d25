package bundle

import "github.com/sealift/sealift/manifest"

// Patterns of the schema, in what RE2 and ECMAScript have in common.
const (
	schemaDNSLabel  = `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`
	schemaRelease   = `^[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?$`
	schemaDependsOn = `^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/)?[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?$`
	schemaSemver    = `^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`
	schemaPlatform  = `^(all|[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?)$`
	schemaReference = `^[a-zA-Z0-9.-]+(:[0-9]+)?/[a-z0-9][a-z0-9._/-]*(:[a-zA-Z0-9_][a-zA-Z0-9_.-]*)?(@sha256:[0-9a-f]{64})?$`
	schemaGlob      = `^[a-zA-Z0-9.*-]+(:[0-9*]+)?/[a-z0-9._*/-]+(:[a-zA-Z0-9_.*-]+)?(@.+)?$`
	schemaKube      = `^v?1\.[0-9]+(\.[0-9]+)?$`
	schemaValuePath = `^([^.\[\]\\]|\\[.\\])+(\.([^.\[\]\\]|\\[.\\])+)*$`
)

// keyRules is what the schema says about keys beyond their Go types. What YAML takes for a number is
// a text to the parser: 1.34, 4.
func keyRules() map[string]schema {
	words := func(list ...string) schema { return schema{"enum": list} }
	matching := func(pattern string) schema { return schema{"pattern": pattern} }
	each := func(s schema) schema { return schema{"items": s, "uniqueItems": true} }
	number := schema{"type": []string{"string", "number"}}
	any3 := []string{"string", "number", "boolean"}
	referrers := words(CarryReferrers, DropReferrers)
	rollback := words(manifest.RollbackSafe, manifest.RollbackManual, manifest.RollbackForbidden)
	platforms := each(matching(schemaPlatform))
	port := schema{"minimum": 1, "maximum": 65535}
	return map[string]schema{
		".apiVersion":   words(SpecAPIVersion),
		".kind":         words(SpecKind),
		".name":         matching(schemaDNSLabel),
		".version":      matching(schemaSemver),
		".channel":      {"pattern": schemaDNSLabel, "default": manifest.DefaultChannel},
		".platforms":    platforms,
		".referrers":    referrers,
		".expires":      matching(`^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].+)?$`),
		"Image.ref":     matching(schemaReference),
		"Image.match":   matching(schemaGlob),
		"Image.oci":     matching(`^[^:]*(:[^/][^:]*)*$`),
		"Ignore.match":  matching(schemaGlob),
		"Artifact.ref":  matching(schemaReference),
		"Artifact.oci":  matching(`^[^:]*(:[^/][^:]*)*$`),
		"Verify.match":  {"minLength": 1},
		"Chart.oci":     matching(`^oci://[a-zA-Z0-9.-]+(:[0-9]+)?/.+$`),
		"Chart.repo":    matching(`^[hH][tT][tT][pP][sS]?://[^@]+$`),
		"Chart.version": number,

		"Image.platforms":    platforms,
		"Image.referrers":    referrers,
		"Artifact.referrers": referrers,
		"Chart.release":      matching(schemaRelease),
		"Chart.namespace":    matching(schemaDNSLabel),
		"Chart.dependsOn":    each(matching(schemaDependsOn)),
		"Chart.apiVersions":  {"uniqueItems": true},
		"Chart.rollback":     rollback,

		"RegistryValue.path": matching(schemaValuePath),
		"Environment.name":   {"pattern": schemaDNSLabel, "maxLength": manifest.MaxEnvironmentName},
		"Environment.values": {"minItems": 1},
		"RegistryValue.gets": {"enum": []string{manifest.RegistryWhole, manifest.RegistryHost, manifest.RegistryPrefix}, "default": manifest.RegistryWhole},
		"Rollout.strategy":   words(manifest.RolloutBlueGreen, manifest.RolloutCanary),
		"Rollout.steps":      {"items": schema{"minimum": 1, "maximum": 99}, "uniqueItems": true},
		"Front.kind":         words(manifest.FrontService, manifest.FrontHTTPRoute),
		"Front.service":      {"pattern": `^[a-z0-9-]*\*[a-z0-9-]*$`},
		"Check.name":         matching(schemaDNSLabel),
		"Check.timeout":      matching(`^([0-9.]+(ns|us|ms|s|m|h))+$`),
		"CheckHTTP.service":  matching(schemaDNSLabel),
		"CheckHTTP.port":     port,
		"CheckHTTP.path":     {"pattern": "^/", "default": "/"},
		"CheckHTTP.status":   {"minimum": 0, "maximum": 599},
		"CheckTCP.service":   matching(schemaDNSLabel),
		"CheckTCP.port":      port,

		"Manifests.name":      matching(schemaRelease),
		"Manifests.namespace": matching(schemaDNSLabel),
		"Manifests.dependsOn": each(matching(schemaDependsOn)),
		"Manifests.rollback":  rollback,

		"Kubernetes.versions":     {"items": schema{"type": []string{"string", "number"}, "pattern": schemaKube}, "uniqueItems": true},
		"Kubernetes.apiVersions":  {"uniqueItems": true},
		"Requires.storageClasses": {"uniqueItems": true},
		"Requires.apiGroups":      {"uniqueItems": true},
		"Nodes.cpu":               number,
		"Nodes.memory":            number,
		"Nodes.architectures":     {"uniqueItems": true},

		"Parameter.name":         matching(`^[a-zA-Z][a-zA-Z0-9._-]{0,62}$`),
		"Parameter.type":         {"enum": []string{manifest.ParameterString, manifest.ParameterInteger, manifest.ParameterNumber, manifest.ParameterBoolean}, "default": manifest.ParameterString},
		"Parameter.default":      {"type": any3},
		"Parameter.enum":         {"items": schema{"type": any3}, "uniqueItems": true},
		"Parameter.values":       {"minItems": 1},
		"ParameterValue.release": matching(schemaDependsOn),
		"ParameterValue.path":    matching(schemaValuePath),
	}
}

// typeRules is what the schema says about mappings: which keys have to be there, or exclude others.
func typeRules() map[string]schema {
	keys := func(k ...string) schema { return schema{"required": k} }
	one := func(choices ...schema) schema { return schema{"oneOf": choices} }
	signer := one(keys("key"), keys("trustedRoot"))
	verify := one(keys("key"), keys("trustedRoot"))
	verify["required"] = []string{"match"}
	check := one(keys("http"), keys("tcp"), keys("job"))
	check["required"] = []string{"name"}
	return map[string]schema{
		"Spec":               keys("apiVersion", "kind", "name", "version"),
		"ImageSpec":          one(keys("ref"), keys("match")),
		"IgnoreSpec":         keys("match"),
		"ArtifactSpec":       keys("ref"),
		"SignerSpec":         signer,
		"VerifySpec":         verify,
		"ChartSpec":          one(keys("path"), keys("oci"), keys("repo", "chart")),
		"EnvironmentSpec":    keys("name", "values"),
		"ProvenanceSpec":     keys("keyring"),
		"RegistryValueSpec":  keys("path"),
		"RolloutSpec":        keys("strategy", "front"),
		"FrontSpec":          keys("kind", "name"),
		"CheckSpec":          check,
		"CheckHTTPSpec":      keys("service", "port"),
		"CheckTCPSpec":       keys("service", "port"),
		"ManifestsSpec":      keys("path"),
		"FileSpec":           keys("path"),
		"ParameterSpec":      keys("name", "values"),
		"ParameterValueSpec": keys("path"),
	}
}

const (
	wordsReferrers = "Whether signatures, attestations, SBOMs and other artifacts travel with what they are about."
	wordsOCI       = "An OCI image layout (a directory or a tar) or a docker save archive on this machine to read it from, instead of a registry. ref is the name that it gets."
	wordsSigners   = "Who must have signed it, besides what verify at the top demands: a mapping, or a list of them, of which all are demanded."
	wordsKey       = "The signer's public key, a file in PEM. Either this, or issuer, subject and trustedRoot."
	wordsIssuer    = "Who vouched for the signer; a * stays within a segment, which ends at / : @ ? #"
	wordsIssuerRE  = "The same as a regular expression (RE2) for the whole text."
	wordsSubject   = "Who signed; a * stays within a segment, which ends at / : @ ? #"
	wordsRoot      = "The trusted_root.json that proves the identity. It travels."
	wordsDependsOn = "Releases that are installed before this one: RELEASE, or NAMESPACE/RELEASE where that is not clear."
	wordsRollback  = "Whether the release may go back to an earlier version: safe, manual (somebody has to do something first, which the notes tell) or forbidden. Without it nobody promises anything."
	wordsChecks    = "Health checks: the release works if they succeed."
	wordsMatch     = "REGISTRY/REPOSITORY[:TAG][@DIGEST]. A * stands for characters within a segment, ** for any segments of the repository. Without tag and digest it matches all."
	wordsService   = "A Service in the namespace of the release."
)

// descriptions are those of all keys, for editors.
var descriptions = map[string]string{
	".apiVersion":   "The version of this format.",
	".kind":         "What this document is.",
	".name":         "The name of the bundle: lower-case letters, digits and dashes.",
	".version":      "A semantic version without a leading v. Once it is published its content never changes: raise it instead.",
	".channel":      "The release channel. Sites compare versions within a channel only.",
	".platforms":    "Platforms of the images, as os/arch or os/arch/variant, or all alone. Default: linux/amd64.",
	".images":       "Images beyond those that the charts bring, more about some of them, and patterns for what is only probably an image.",
	".ignoreImages": "Patterns for images that the content names and that are left out.",
	".artifacts":    "What registries hold beside images: models, WASM modules, policies, SBOMs.",
	".charts":       "Helm charts. They are rendered to find their images, and installed in this order, as far as dependsOn demands no other.",
	".manifests":    "Plain Kubernetes objects. Each item is installed as a release of its own, before the charts unless it depends on one.",
	".files":        "Whatever else the site needs.",
	".kubernetes":   "For which clusters charts are rendered to find their images.",
	".requires":     "What the site must have; checked before anything is changed there.",
	".parameters":   "What the site may, or must, say when it installs.",
	".notes":        "The release notes, a Markdown file.",
	".expires":      "A date, to the end of which in UTC sites accept the bundle for the first time, or a time such as 2027-12-31T12:00:00Z.",
	".roots":        "The directory with the vendor's root documents, N.root.json. They travel with the signatures.",
	".verify":       "Who must have signed which images. Every item that matches counts; one that matches no image is an error.",
	".referrers":    wordsReferrers,

	"Image.ref":       "The image, with its registry: HOST[:PORT]/PATH[:TAG][@sha256:…].",
	"Image.match":     wordsMatch + " What charts only probably name is packed if it matches.",
	"Image.oci":       wordsOCI,
	"Image.why":       "For those who read the spec.",
	"Image.platforms": "Replaces platforms for this image.",
	"Image.verify":    wordsSigners,
	"Image.referrers": wordsReferrers,

	"Ignore.match": wordsMatch,
	"Ignore.why":   "For those who read the spec, and the list of what is in the bundle.",

	"Artifact.ref":       "The artifact, with its registry: HOST[:PORT]/PATH[:TAG][@sha256:…].",
	"Artifact.oci":       wordsOCI,
	"Artifact.verify":    wordsSigners,
	"Artifact.referrers": wordsReferrers,

	"Signer.key":           wordsKey,
	"Signer.issuer":        wordsIssuer,
	"Signer.issuerRegExp":  wordsIssuerRE,
	"Signer.subject":       wordsSubject,
	"Signer.subjectRegExp": wordsIssuerRE,
	"Signer.trustedRoot":   wordsRoot,

	"Verify.match":         "Compared with REGISTRY/REPOSITORY of every image, without tag and digest; a * stays within a segment.",
	"Verify.key":           wordsKey,
	"Verify.issuer":        wordsIssuer,
	"Verify.issuerRegExp":  wordsIssuerRE,
	"Verify.subject":       wordsSubject,
	"Verify.subjectRegExp": wordsIssuerRE,
	"Verify.trustedRoot":   wordsRoot,

	"Chart.path":           "A chart directory or a .tgz on this machine.",
	"Chart.oci":            "A chart in a registry: oci://REGISTRY/REPOSITORY, to which version adds the tag, or with :TAG or @DIGEST.",
	"Chart.repo":           "The address of a chart repository, without credentials.",
	"Chart.chart":          "The name of the chart in repo.",
	"Chart.version":        "A version or a range of versions, such as 1.2.3 or ^1.2. For a path it is compared.",
	"Chart.verify":         "Demands a provenance file.",
	"Chart.release":        "The name of the release. Default: the chart's name.",
	"Chart.namespace":      "The namespace of the release. Default: the release.",
	"Chart.values":         "Values files, merged from first to last. They travel and are used at the site.",
	"Chart.environments":   "Values for kinds of sites, such as staging, of which a site may choose one set with --environment.",
	"Chart.renderWith":     "More values files, each used by itself on top of values, only to find images. They do not travel.",
	"Chart.apiVersions":    "Added to those under kubernetes when this chart is rendered.",
	"Chart.dependsOn":      wordsDependsOn,
	"Chart.registryValues": "Values that receive the site's registry, for charts that make references from parts.",
	"Chart.rollback":       wordsRollback,
	"Chart.rollout":        "How a new version takes over from the old one. Without it, in place.",
	"Chart.checks":         wordsChecks,

	"Environment.name":   "What a site chooses it by, for all charts that have it.",
	"Environment.values": "Values files, used on top of those of the chart, merged from first to last. They travel.",

	"Provenance.keyring": "A file with the OpenPGP public keys of which one must have signed the chart.",

	"RegistryValue.path": "The value, as global.imageRegistry. A dot that belongs to a key has a backslash before it.",
	"RegistryValue.gets": "For the registry HOST[:PORT]/PREFIX: registry is all of it, host is HOST[:PORT], prefix is PREFIX.",

	"Rollout.strategy": "blueGreen switches at once, canary step by step.",
	"Rollout.front":    "The object that leads to the release, and that is switched.",
	"Rollout.steps":    "The shares of a canary in percent, rising, each below 100.",

	"Front.kind":    "Service or HTTPRoute.",
	"Front.name":    "The name of the object, in the namespace of the release.",
	"Front.service": "The name of the chart's Service that it leads to, with * for the name of the release, such as *-web. Default: the only one that the chart has.",
	"Front.object":  "A YAML file with one HTTPRoute, from which the front is made. Default: the site makes it.",

	"Check.name":    "What reports call it.",
	"Check.http":    "Asks a Service.",
	"Check.tcp":     "Connects to a Service.",
	"Check.job":     "A YAML file with one Job, which has to succeed.",
	"Check.timeout": "How long it may take until it succeeds, such as 90s or 2m30s. Default: the time-out of the command.",

	"CheckHTTP.service": wordsService,
	"CheckHTTP.port":    "The Service's port.",
	"CheckHTTP.path":    "The path that is asked for.",
	"CheckHTTP.status":  "The status that is expected. Default: any from 200 to 299.",
	"CheckHTTP.tls":     "Whether the Service speaks HTTPS.",

	"CheckTCP.service": wordsService,
	"CheckTCP.port":    "The Service's port.",

	"Manifests.path":      "A file .yaml, .yml or .json, a directory of such files, or a directory with a kustomization, which is built when the bundle is packed.",
	"Manifests.name":      "The name of the release. Default: the name of the file or directory.",
	"Manifests.namespace": "The namespace of objects that name none. Default: the name.",
	"Manifests.dependsOn": wordsDependsOn,
	"Manifests.rollback":  wordsRollback,
	"Manifests.checks":    wordsChecks,

	"File.path": "A file, or a directory with all that is in it.",
	"File.name": "The path that it gets in the bundle. Default: the last element of path.",

	"Kubernetes.versions":    "Charts are rendered for each: 1.34 or v1.34.2.",
	"Kubernetes.apiVersions": "What the cluster has beside Kubernetes' own: monitoring.coreos.com/v1 or monitoring.coreos.com/v1/ServiceMonitor.",

	"Requires.kubernetes":     "A range of versions, such as >=1.30 <1.36.",
	"Requires.upgradeFrom":    "The range of versions of this bundle that it can replace. A first install is always possible.",
	"Requires.nodes":          "What the nodes of the cluster must offer.",
	"Requires.storageClasses": "Storage classes that must be there; * stands for a default one.",
	"Requires.apiGroups":      "What the cluster must serve: GROUP, GROUP/VERSION or GROUP/VERSION/KIND.",

	"Nodes.cpu":           "Of all nodes together, as a Kubernetes quantity: 4.",
	"Nodes.memory":        "Of all nodes together, as a Kubernetes quantity: 8Gi.",
	"Nodes.architectures": "Nodes of at least one of these must be there.",

	"Parameter.name":        "How the site calls it.",
	"Parameter.description": "What it is for.",
	"Parameter.type":        "The type of the value.",
	"Parameter.default":     "The value where the site says nothing.",
	"Parameter.required":    "The site has to say it.",
	"Parameter.secret":      "Never shown, nor written down. It has no default.",
	"Parameter.pattern":     "A regular expression (RE2) for the whole text of a string.",
	"Parameter.enum":        "What is allowed.",
	"Parameter.values":      "The chart values that receive it.",

	"ParameterValue.release": "RELEASE, or NAMESPACE/RELEASE where that is not clear. It may be left out where the spec has one chart.",
	"ParameterValue.path":    "The value, as ingress.host. A dot that belongs to a key has a backslash before it.",
}
