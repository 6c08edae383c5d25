package registry

import (
	"path"
	"slices"
	"strings"
	"sync"
)

const (
	// maxUploads bounds for how many uploads states are kept; there are rarely more than some tens.
	maxUploads = 4096
	// maxStates bounds the states of one upload: the last one is asked for.
	maxStates = 4
)

// hashStates are states of hash functions, by the path of the upload and the offset that they are
// for. What is forgotten is computed anew.
type hashStates struct {
	mu      sync.Mutex
	uploads map[string][]hashState
	// order is that in which uploads began.
	order []string
}

type hashState struct {
	path    string
	content []byte
}

// upload is the path of the upload that a state is of.
func upload(p string) (string, bool) {
	i := strings.Index(p, "/_uploads/")
	if i < 0 {
		return "", false
	}
	j := strings.Index(p[i:], "/hashstates/")
	if j < 0 {
		return "", false
	}
	return p[:i+j], true
}

// put keeps a state, and reports whether it is one.
func (h *hashStates) put(p string, content []byte) bool {
	of, ok := upload(p)
	if !ok {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.uploads == nil {
		h.uploads = map[string][]hashState{}
	}
	states, there := h.uploads[of]
	if !there {
		if len(h.order) == maxUploads {
			delete(h.uploads, h.order[0])
			h.order = slices.Delete(h.order, 0, 1)
		}
		h.order = append(h.order, of)
	}
	states = slices.DeleteFunc(states, func(s hashState) bool { return s.path == p })
	if len(states) == maxStates {
		states = slices.Delete(states, 0, 1)
	}
	h.uploads[of] = append(states, hashState{p, slices.Clone(content)})
	return true
}

func (h *hashStates) get(p string) ([]byte, bool) {
	of, ok := upload(p)
	if !ok {
		return nil, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.uploads[of] {
		if s.path == p {
			return s.content, true
		}
	}
	return nil, false
}

// list returns the paths of the states in a directory.
func (h *hashStates) list(dir string) []string {
	of, ok := upload(dir + "/")
	if !ok {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var paths []string
	for _, s := range h.uploads[of] {
		if path.Dir(s.path) == dir {
			paths = append(paths, s.path)
		}
	}
	return paths
}

// drop forgets an upload that is deleted.
func (h *hashStates) drop(p string) {
	if !inUpload(p) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, there := h.uploads[p]; there {
		delete(h.uploads, p)
		h.order = slices.DeleteFunc(h.order, func(of string) bool { return of == p })
	}
}
