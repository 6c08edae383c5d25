package release

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// pollEvery is the time between two looks at something that is waited for.
const pollEvery = 300 * time.Millisecond

// poll asks until it is done, fails, or the time is up, which is a context.DeadlineExceeded.
func poll(ctx context.Context, timeout time.Duration, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

const (
	// maxDocs bounds documents that are read here, in bytes, and maxObjectsRead their objects.
	maxDocs        = 32 << 20
	maxObjectsRead = 10_000
)

// readObjects reads the objects of a stream of YAML or JSON documents, those in lists among them.
func readObjects(docs []byte) ([]*unstructured.Unstructured, error) {
	if len(docs) > maxDocs {
		return nil, fmt.Errorf("reading objects: there are more than %d bytes", maxDocs)
	}
	var all []*unstructured.Unstructured
	dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(docs), 4096)
	for {
		u := &unstructured.Unstructured{}
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err == nil && len(raw) > 0 {
			err = utiljson.Unmarshal(raw, &u.Object) // integers stay what they are
		}
		if err != nil {
			return nil, fmt.Errorf("reading object %d: %w", len(all)+1, err)
		}
		if len(u.Object) == 0 {
			continue
		}
		if !u.IsList() {
			all = append(all, u)
		} else if err := u.EachListItem(func(o runtime.Object) error {
			item, ok := o.(*unstructured.Unstructured)
			if !ok {
				return fmt.Errorf("reading object %d: a list holds a %T", len(all)+1, o)
			}
			all = append(all, item)
			return nil
		}); err != nil {
			return nil, err
		}
		if len(all) > maxObjectsRead {
			return nil, fmt.Errorf("reading objects: there are more than %d", maxObjectsRead)
		}
		for _, o := range all[max(0, len(all)-1):] {
			if o.GetKind() == "" || o.GetAPIVersion() == "" {
				return nil, fmt.Errorf("reading object %d: it has no kind or no apiVersion", len(all))
			}
		}
	}
}
