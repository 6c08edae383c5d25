package cli

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/manifest"
)

type listFlags struct {
	trust                            trustFlags
	images, charts, artifacts, files bool
}

func (a *app) listCommand() *cobra.Command {
	var f listFlags
	c := &cobra.Command{
		Use:   "list BUNDLE...",
		Short: "List the entries, images, charts, artifacts or files of a bundle",
		Long: `List what is in a bundle, one a line: for each entry of the file its digest (or its name,
where it is no blob), its size in bytes, its encoding and its media type. With --images the
references of the images with their digests instead, with --charts and --artifacts those
of the charts and artifacts, with --files the names of the files.
The payload is not read.

Without --key, and without a policy of the site, nothing of it is proven, and standard error
says so; else the signature is checked first.

` + placesHelp + `
Of a bundle in volumes the first one suffices. ` + streamHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.list(cmd, args, f) },
	}
	f.trust.add(c)
	c.Flags().BoolVar(&f.images, "images", false, "list the images: REPOSITORY:TAG@DIGEST")
	c.Flags().BoolVar(&f.charts, "charts", false, "list the charts: charts/NAME:VERSION@DIGEST")
	c.Flags().BoolVar(&f.artifacts, "artifacts", false, "list the artifacts that are no images: REPOSITORY:TAG@DIGEST")
	c.Flags().BoolVar(&f.files, "files", false, "list the names of the files")
	return c
}

// listedEntry is an entry of the file. Digest and Size are those of the blob that it holds,
// StoredDigest and Stored those of the entry itself.
type listedEntry struct {
	Name         string `json:"name"`
	Digest       string `json:"digest"`
	Size         int64  `json:"size"`
	Encoding     string `json:"encoding"`
	MediaType    string `json:"mediaType"`
	StoredDigest string `json:"storedDigest"`
	Stored       int64  `json:"stored"`
	blob         bool
}

type listedImage struct {
	Reference string   `json:"reference"`
	Source    string   `json:"source"`
	Digest    string   `json:"digest"`
	MediaType string   `json:"mediaType"`
	Platforms []string `json:"platforms"`
}

type listedChart struct {
	Reference string `json:"reference"`
	Name      string `json:"name"`
	Version   string `json:"version"`
	// Digest is that of the manifest around the archive.
	Digest    string `json:"digest"`
	Archive   string `json:"archive"`
	Release   string `json:"release"`
	Namespace string `json:"namespace"`
}

// Media types of the entries that are no blobs.
const (
	mediaTypeLayout = "application/vnd.oci.layout.header.v1+json"
	mediaTypeIndex  = "application/vnd.oci.image.index.v1+json"
)

func listEntries(m *manifest.Manifest, digest string) ([]listedEntry, error) {
	raw, err := manifest.Encode(m)
	if err != nil {
		return nil, err
	}
	all := []listedEntry{{
		Name: manifest.EntryManifest, Digest: digest, Size: int64(len(raw)), Encoding: manifest.EncodingStored,
		MediaType: manifest.MediaType, StoredDigest: digest, Stored: int64(len(raw)),
	}}
	types := map[string]string{manifest.EntryOCILayout: mediaTypeLayout, manifest.EntryIndex: mediaTypeIndex}
	blobs := len(m.Entries) - len(m.Blobs)
	for i, e := range m.Entries {
		l := listedEntry{
			Name: e.Name, Digest: "sha256:" + e.SHA256, Size: e.Size, Encoding: manifest.EncodingStored,
			MediaType: types[e.Name], StoredDigest: "sha256:" + e.SHA256, Stored: e.Size,
		}
		if i >= blobs {
			b := &m.Blobs[i-blobs]
			l.Digest, l.Size, l.Encoding, l.MediaType, l.blob = b.Digest, b.Size, b.Encoding, b.MediaType, true
		}
		all = append(all, l)
	}
	return all, nil
}

func listImages(images []manifest.Image) []listedImage {
	all := []listedImage{}
	for i := range images {
		img := &images[i]
		ref := img.Source
		if _, _, pin := manifest.SplitSource(ref); pin == "" {
			ref += "@" + img.Digest
		}
		all = append(all, listedImage{ref, img.Source, img.Digest, img.MediaType, img.Platforms})
	}
	return all
}

func listCharts(m *manifest.Manifest) []listedChart {
	all := []listedChart{}
	for i := range m.Charts {
		c := &m.Charts[i]
		all = append(all, listedChart{
			"charts/" + c.Name + ":" + c.Version + "@" + c.Manifest.Digest,
			c.Name, c.Version, c.Manifest.Digest, c.Archive.Digest, c.Release, c.Namespace,
		})
	}
	return all
}

func (a *app) list(cmd *cobra.Command, args []string, f listFlags) error {
	l, err := a.lookAt(cmd, args, &f.trust)
	if err != nil {
		return err
	}
	result := struct {
		*looked
		Entries   []listedEntry   `json:"entries,omitempty"`
		Images    []listedImage   `json:"images,omitzero"`
		Charts    []listedChart   `json:"charts,omitzero"`
		Artifacts []listedImage   `json:"artifacts,omitzero"`
		Files     []manifest.File `json:"files,omitzero"`
	}{looked: l}
	if f.images {
		result.Images = listImages(l.manifest.Images)
	}
	if f.artifacts {
		result.Artifacts = listImages(l.manifest.Artifacts)
	}
	if f.files {
		result.Files = append([]manifest.File{}, l.manifest.Files...)
	}
	if f.charts {
		result.Charts = listCharts(l.manifest)
	}
	if !f.images && !f.charts && !f.artifacts && !f.files {
		if result.Entries, err = listEntries(l.manifest, l.Digest); err != nil {
			return err
		}
	}
	if !l.Proven {
		// Not among the lines, which scripts read.
		fmt.Fprintln(a.env.Stderr, unproven(l.pinned, count(l.Signatures, "signature"), "listed"))
	}
	return a.print(result, func(w io.Writer) {
		for _, e := range result.Entries {
			what := e.Name
			if e.blob {
				what = e.Digest
			}
			fmt.Fprintf(w, "%-71s  %12d  %-6s  %s\n", what, e.Size, e.Encoding, e.MediaType)
		}
		for _, i := range result.Images {
			fmt.Fprintln(w, i.Reference)
		}
		for _, a := range result.Artifacts {
			fmt.Fprintln(w, a.Reference)
		}
		for _, file := range result.Files {
			fmt.Fprintln(w, file.Name)
		}
		var lines []string
		for _, c := range result.Charts {
			// A chart is listed once, however many releases are made of it.
			if !slices.Contains(lines, c.Reference) {
				lines = append(lines, c.Reference)
				fmt.Fprintln(w, c.Reference)
			}
		}
	})
}
