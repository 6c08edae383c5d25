package registry

import (
	"context"
	"net/http"
)

// Store is a store that this process writes to by itself.
type Store struct{ server *Server }

// OpenStore opens the store at dir, which is made if it is missing, to be written to by this process,
// whoever else serves it or writes to it. Indexes may name children that are not there. A *BusyError
// says that it is being pruned.
func OpenStore(ctx context.Context, dir string) (*Store, error) {
	s, err := New(ctx, Options{Store: dir, SparseIndexes: true})
	if err != nil {
		return nil, err
	}
	return &Store{s}, nil
}

// ReadStore is OpenStore for a store that is only looked at.
func ReadStore(ctx context.Context, dir string) (*Store, error) {
	s, err := New(ctx, Options{Store: dir, SparseIndexes: true, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	return &Store{s}, nil
}

// Transport answers requests for any host from the store, in this process: no connection is made.
func (s *Store) Transport() http.RoundTripper { return inProcess{s.server.Handler()} }

// Close gives the store back. Requests must have ended.
func (s *Store) Close() error { return s.server.Close() }
