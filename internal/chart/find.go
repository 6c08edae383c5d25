package chart

// Way is how a place names an image. docs/image-discovery.md says what each finds.
type Way string

// The ways. The ones that are certain by themselves come first.
const (
	// WayContainer is the image of a container, init container or ephemeral container, in pods
	// and in whatever embeds a pod template.
	WayContainer Way = "container"
	// WayVolume is the reference of an image volume.
	WayVolume Way = "volume"
	// WayField is a field of a custom resource that is known to name an image.
	WayField Way = "field"
	// WayEnvironment is an environment variable of a container.
	WayEnvironment Way = "environment"
	// WayArgument is an argument, or a word of the command, of a container.
	WayArgument Way = "argument"
	// WayAnnotation is an annotation of an object.
	WayAnnotation Way = "annotation"
	// WayImageKey is a field of any object that is called image, or ends so.
	WayImageKey Way = "image-key"
	// WayParts is a mapping with the parts of a reference, such as repository and tag.
	WayParts Way = "parts"
	// WayConfig is the content of a ConfigMap, or of a Secret that holds configuration.
	WayConfig Way = "config"
	// WayText is any other text.
	WayText Way = "text"
	// WayChartAnnotation is artifacthub.io/images or images in the annotations of Chart.yaml.
	WayChartAnnotation Way = "chart-annotation"
	// WayImagesLock is an Images.lock file of a chart.
	WayImagesLock Way = "images-lock"
)

// Find is one place that names an image.
type Find struct {
	// Reference as it is written, or put together from its parts; without surrounding white space.
	Reference string
	Way       Way
	// Probable says that it may be something else than an image; else it is certain.
	Probable bool
	// Object is "Kind/name"; for what no object says it is the file in the chart.
	Object string
	// Path within the object, as "spec.template.spec.containers[0].args[2]", or within the file.
	Path string
}

// Unused is an image that the values of a chart name in parts and that no rendered object uses:
// possibly one that is missing.
type Unused struct {
	// Reference put together from the parts.
	Reference string
	// Path of the mapping in the values, as "metrics.image".
	Path string
	// Switch are the paths of values that are off (false, or an empty list) and may turn it on, as
	// "metrics.enabled"; nearest first. It may be empty.
	Switch []string
}
