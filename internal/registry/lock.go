package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sealift/sealift/internal/filelock"
)

const (
	// stateName is the directory, in that of a store, of what is ours and not the distribution
	// registry's: lock, secret, users, certificates.
	stateName = "sealift"
	lockName  = "lock"
	// pruneWait is how long who wants to write waits for one that prunes.
	pruneWait = 10 * time.Second
)

// StateDir is the directory in the store at dir of what is ours.
func StateDir(dir string) string { return filepath.Join(dir, stateName) }

// BusyError says that a store is in use.
type BusyError struct {
	// Store is its directory.
	Store string
	// Pruning says that it is being pruned, so that nothing may be written; else it is being written
	// to, so that nothing may be pruned.
	Pruning bool
}

// Error says how it is used.
func (e *BusyError) Error() string {
	if e.Pruning {
		return fmt.Sprintf("store %q is being pruned by another process", e.Store)
	}
	return fmt.Sprintf("store %q is in use: another process serves it or writes to it", e.Store)
}

// NoLocksError says that a store is on a file system without locks, so that nobody can tell whether
// others write to it.
type NoLocksError struct{ Store string }

// Error names the store.
func (e *NoLocksError) Error() string {
	return fmt.Sprintf("store %q is on a file system without locks: it cannot be told whether others write to it", e.Store)
}

// errNotPlain says that something is there that nobody of ours has made.
var errNotPlain = errors.New("not a regular file")

// openPlain opens a regular file, which is made where there is none, and reports whether it was: only
// then may it be given away. Whoever may write to the directory may have put a link there.
func openPlain(path string, how int, mode fs.FileMode) (f *os.File, made bool, err error) {
	f, err = os.OpenFile(path, how|os.O_CREATE|os.O_EXCL, mode)
	if err == nil {
		return f, true, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return nil, false, err
	}
	there, err := os.Lstat(path)
	if err != nil {
		return nil, false, err
	}
	if !there.Mode().IsRegular() {
		return nil, false, &fs.PathError{Op: "open", Path: path, Err: errNotPlain}
	}
	if f, err = os.OpenFile(path, how|plainly, 0); err != nil {
		return nil, false, err
	}
	info, err := f.Stat()
	if err == nil && !os.SameFile(info, there) {
		err = &fs.PathError{Op: "open", Path: path, Err: errNotPlain}
	}
	if err != nil {
		return nil, false, errors.Join(err, f.Close())
	}
	return f, false, nil
}

// storeLock is held by those who write to a store, together, or by one who prunes it, alone. It is
// given back when the process ends, however it ends.
type storeLock struct{ f *os.File }

// openLock opens the lock of the store at dir, which is made where it is not there.
func openLock(dir string) (*storeLock, error) {
	state := StateDir(dir)
	owner, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(state, 0o755); err == nil {
		err = like(state, owner)
		if err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if info, err := os.Lstat(state); err != nil || !info.IsDir() {
		return nil, errors.Join(err, &fs.PathError{Op: "open", Path: state, Err: errNotDirectory})
	}
	f, made, err := openPlain(filepath.Join(state, lockName), os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if made {
		if err := likeFile(f, owner); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return &storeLock{f}, nil
}

// lockToWrite locks the store at dir together with others who write. It waits a little for one who
// prunes.
func lockToWrite(ctx context.Context, dir string) (*storeLock, error) {
	l, err := openLock(dir)
	if err != nil {
		return nil, fmt.Errorf("locking store: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, pruneWait, &BusyError{dir, true})
	defer cancel()
	err = filelock.Wait(ctx, l.f, filelock.TryShared)
	if err == nil || errors.Is(err, filelock.ErrUnsupported) { // nobody prunes where there are none
		return l, nil
	}
	l.release()
	if ctx.Err() == nil {
		err = fmt.Errorf("locking store %q: %w", dir, err)
	}
	return nil, err
}

// lockToPrune locks the store at dir for one alone.
func lockToPrune(dir string) (*storeLock, error) {
	l, err := openLock(dir)
	if err != nil {
		return nil, fmt.Errorf("locking store: %w", err)
	}
	if err := filelock.Try(l.f); err != nil {
		l.release()
		if errors.Is(err, filelock.ErrHeld) {
			return nil, &BusyError{Store: dir}
		}
		if errors.Is(err, filelock.ErrUnsupported) {
			return nil, &NoLocksError{dir}
		}
		return nil, fmt.Errorf("locking store %q: %w", dir, err)
	}
	return l, nil
}

// release gives the lock back; closing a file that was not written to loses nothing.
func (l *storeLock) release() {
	if l != nil {
		_ = l.f.Close()
	}
}
