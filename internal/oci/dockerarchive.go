package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealift/sealift/manifest"
)

// savedFile lists the images of an archive that "docker save" has made: the names of each, and the
// files that have its config and its layers.
const savedFile = "manifest.json"

// maxSavedLayers bounds the layers of all images of an archive.
const maxSavedLayers = 65536

// savedImage is an image as that list has it.
type savedImage struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// savedManifest is the manifest that is written for such an image: that of Docker (image manifest
// version 2, schema 2), since the config is Docker's. The order of the members is that of docker's
// own ones.
type savedManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        savedDescriptor   `json:"config"`
	Layers        []savedDescriptor `json:"layers"`
}

type savedDescriptor struct {
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	Digest    string `json:"digest"`
}

// loadSaved writes a manifest for each image that docker has saved, always the same for the same
// image. The config stays as it is, so that its digest still is the ID of the image.
func (l *Local) loadSaved() error {
	raw, err := readFile(l.files, savedFile, manifest.MaxOCIManifestBytes)
	if err != nil {
		return err
	}
	var list []savedImage
	if err := json.Unmarshal(raw, &list); err != nil {
		return fmt.Errorf("parsing %s: %w", savedFile, err)
	}
	layers := 0
	for _, img := range list {
		layers += len(img.Layers)
	}
	if len(list) > maxListed || layers > maxSavedLayers {
		return fmt.Errorf("parsing %s: %d images and %d layers, at most %d and %d are allowed", savedFile, len(list), layers, maxListed, maxSavedLayers)
	}
	// Images share layers.
	compressed := map[string]savedDescriptor{}
	for i, img := range list {
		c, err := l.makeManifest(img, compressed)
		if err != nil {
			return fmt.Errorf("%s: image %d %q: %w", savedFile, i, img.RepoTags, err)
		}
		l.made[c.Digest] = c
		local := localImage{Listed: Listed{Descriptor: c.Descriptor}}
		for _, name := range img.RepoTags {
			local.name(name)
		}
		l.images = append(l.images, local)
	}
	return nil
}

func (l *Local) makeManifest(img savedImage, compressed map[string]savedDescriptor) (*Content, error) {
	config, err := readFile(l.files, img.Config, MaxConfigBytes)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	var doc struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &doc); err != nil {
		return nil, fmt.Errorf("config %q: %w", img.Config, err)
	}
	ids := doc.RootFS.DiffIDs
	if len(ids) != len(img.Layers) || len(ids) > maxChildren {
		return nil, fmt.Errorf("it has %d layers, its config has %d, at most %d are allowed", len(img.Layers), len(ids), maxChildren)
	}
	m := savedManifest{SchemaVersion: 2, MediaType: string(types.DockerManifestSchema2), Layers: []savedDescriptor{}}
	m.Config = savedDescriptor{string(types.DockerConfigJSON), int64(len(config)), manifest.Digest(config)}
	l.blobs[m.Config.Digest] = img.Config
	for i, name := range img.Layers {
		d, err := l.savedLayer(name, ids[i], compressed)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		l.blobs[d.Digest] = name
		m.Layers = append(m.Layers, d)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encoding image manifest: %w", err)
	}
	return &Content{Descriptor: manifest.Descriptor{Digest: manifest.Digest(raw), MediaType: m.MediaType, Size: int64(len(raw))}, Raw: raw}, nil
}

// savedLayer describes a layer. Of one that is a plain tar the config has the digest, which whoever
// streams it proves; other tools than docker save compressed ones, of which nothing has it.
func (l *Local) savedLayer(name, diffID string, compressed map[string]savedDescriptor) (savedDescriptor, error) {
	if err := manifest.CheckDigest(diffID); err != nil {
		return savedDescriptor{}, fmt.Errorf("its digest in the config: %w", err)
	}
	name = path.Clean(name)
	if d, ok := compressed[name]; ok {
		return d, nil
	}
	r, err := l.files.open(name, 0)
	if err != nil {
		return savedDescriptor{}, err
	}
	defer r.Close()
	magic := make([]byte, magicBytes)
	n, err := io.ReadFull(r, magic)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return savedDescriptor{}, err
	}
	switch format := compressionOf(magic[:n]); format {
	case "":
		size, ok := l.files.size(name)
		if !ok {
			return savedDescriptor{}, ErrAbsent
		}
		return savedDescriptor{string(types.DockerUncompressedLayer), size, diffID}, nil
	case formatGzip:
		h := sha256.New()
		_, _ = h.Write(magic[:n]) // a hash takes everything
		rest, err := io.Copy(h, r)
		if err != nil {
			return savedDescriptor{}, err
		}
		d := savedDescriptor{string(types.DockerLayer), int64(n) + rest, "sha256:" + hex.EncodeToString(h.Sum(nil))}
		compressed[name] = d
		return d, nil
	default:
		return savedDescriptor{}, fmt.Errorf("it is compressed with %s, docker's own are plain or gzip: %w", format, ErrUnsupported)
	}
}
