package chart

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
)

const (
	// maxDeclared bounds an Images.lock file and an annotation of Chart.yaml, in bytes.
	maxDeclared = 1 << 20
	// maxDeclaredImages bounds the images that one of these declares.
	maxDeclaredImages = 10_000
)

// imageAnnotations are those of Chart.yaml that list images: that of Artifact Hub
// (https://artifacthub.io/docs/topics/annotations/helm/) and that of Bitnami's charts.
var imageAnnotations = []string{"artifacthub.io/images", "images"}

// Declared lists the images that the chart and its sub-charts, used or not, say they have: in
// annotations of Chart.yaml (artifacthub.io/images, images) and in Images.lock files as dt writes
// them. They are certain; Object is the file, as "charts/db/Chart.yaml".
//
// What of these cannot be read is in warnings, one line each: charts have annotations that nobody
// ever read. An error is a *[LoadError].
func (c *Chart) Declared() (finds []Find, warnings []string, err error) {
	ch, err := c.HelmChart()
	if err != nil {
		return nil, nil, err
	}
	d := declared{seen: map[Find]bool{}}
	d.chart(ch, "")
	return d.finds, d.warnings, nil
}

type declared struct {
	finds    []Find
	warnings []string
	seen     map[Find]bool
}

// chart reads a chart whose files are below prefix.
func (d *declared) chart(ch *chartv2.Chart, prefix string) {
	if ch.Metadata != nil {
		for _, name := range imageAnnotations {
			if value := ch.Metadata.Annotations[name]; strings.TrimSpace(value) != "" {
				d.list(value, WayChartAnnotation, prefix+"Chart.yaml", join("annotations", name))
			}
		}
	}
	for _, file := range ch.Files {
		if file.Name == "Images.lock" {
			d.list(string(file.Data), WayImagesLock, prefix+file.Name, "")
		}
	}
	for _, sub := range ch.Dependencies() {
		d.chart(sub, prefix+"charts/"+sub.Name()+"/")
	}
}

// list reads a list of images, or the field images of a document.
func (d *declared) list(value string, way Way, object, path string) {
	where := strings.TrimSpace(object + " " + path)
	root, err := readDeclared(value)
	if err != nil {
		d.warnings = append(d.warnings, fmt.Sprintf("reading the images of %s: %v", where, err))
		return
	}
	if images := field(root, "images"); images != nil {
		root, path = images, join(path, "images")
	}
	if root.Kind != yaml.SequenceNode || len(root.Content) > maxDeclaredImages {
		d.warnings = append(d.warnings, fmt.Sprintf("reading the images of %s: no list of at most %d images", where, maxDeclaredImages))
		return
	}
	for i, item := range root.Content {
		at := joinIndex(path, i)
		image := item
		if item.Kind == yaml.MappingNode {
			image, at = field(item, "image"), at+".image"
		}
		reference := strings.TrimSpace(text(image))
		if _, ok := parseImage(reference); !ok {
			d.warnings = append(d.warnings, fmt.Sprintf("reading the images of %s: %s is %q, not the reference of an image", object, at, cut(reference, maxReference)))
			continue
		}
		find := Find{Reference: reference, Way: way, Object: object, Path: at}
		if !d.seen[find] {
			d.seen[find] = true
			d.finds = append(d.finds, find)
		}
	}
}

// readDeclared reads the first document of a text.
func readDeclared(value string) (*yaml.Node, error) {
	if len(value) > maxDeclared {
		return nil, fmt.Errorf("there are more than %d bytes", maxDeclared)
	}
	var node yaml.Node
	err := protect(func() error { return yaml.NewDecoder(bytes.NewReader([]byte(value))).Decode(&node) })
	switch {
	case errors.Is(err, io.EOF) || err == nil && len(node.Content) != 1:
		return nil, errNoDocument
	case err != nil:
		return nil, err
	}
	budget := maxInnerNodes
	r := resolver{budget: &budget, open: map[*yaml.Node]bool{}}
	return r.resolve(node.Content[0], 0)
}
