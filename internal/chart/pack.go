package chart

import (
	"archive/tar"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/klauspost/compress/gzip"
	"helm.sh/helm/v4/pkg/chart/common"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

// packLevel never changes: another level is another digest for the same chart.
const packLevel = 6

// packDir packages a chart directory the way Load documents. Helm's loader
// chooses the files (it honours .helmignore and bounds their size), and the
// bytes it read are the bytes that are packed; nothing is read twice.
func packDir(dir string) ([]byte, error) {
	ch, err := loadDir(dir)
	if err != nil {
		return nil, err
	}
	return pack(ch, nil)
}

func loadDir(dir string) (ch *chartv2.Chart, err error) {
	err = protect(func() (err error) {
		ch, err = loader.LoadDir(dir)
		return err
	})
	return ch, err
}

// pack packages what loadDir read, and files that are not in the directory.
func pack(ch *chartv2.Chart, more []*common.File) ([]byte, error) {
	files := slices.Concat(ch.Raw, more)
	slices.SortFunc(files, func(a, b *common.File) int { return cmp.Compare(a.Name, b.Name) })

	var buf bytes.Buffer
	zw, err := gzip.NewWriterLevel(&buf, packLevel)
	if err != nil {
		return nil, err
	}
	zw.ModTime = time.Unix(0, 0) // the zero time would be written as some date
	tw := tar.NewWriter(zw)
	for _, f := range files {
		h := &tar.Header{
			Typeflag: tar.TypeReg,
			Name:     ch.Name() + "/" + f.Name,
			Mode:     0o644,
			Size:     int64(len(f.Data)),
			ModTime:  time.Unix(0, 0),
		}
		if err := tw.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("packing %q: %w", f.Name, err)
		}
		if _, err := tw.Write(f.Data); err != nil {
			return nil, fmt.Errorf("packing %q: %w", f.Name, err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
