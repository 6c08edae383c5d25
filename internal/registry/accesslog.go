package registry

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// AccessLog writes the lines of an access log, whole ones, one after the other.
type AccessLog struct {
	path string

	mu sync.Mutex
	w  io.Writer
	f  *os.File
}

// NewAccessLog returns one that writes to w.
func NewAccessLog(w io.Writer) *AccessLog { return &AccessLog{w: w} }

// OpenAccessLog returns one that appends to the file at path, which is made if it is not there.
func OpenAccessLog(path string) (*AccessLog, error) {
	l := &AccessLog{path: path}
	if err := l.Reopen(); err != nil {
		return nil, err
	}
	return l, nil
}

// Reopen opens the file again, after somebody has moved the old one away. Where that fails, lines go
// on into the old one.
func (l *AccessLog) Reopen() error {
	if l.path == "" {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("opening the access log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.f
	l.f, l.w = f, f
	if old == nil {
		return nil
	}
	return old.Close()
}

// Write writes a line.
func (l *AccessLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.w == nil {
		return 0, errors.New("writing to the access log: it is closed")
	}
	return l.w.Write(line)
}

// Close closes the file.
func (l *AccessLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w = nil
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}
