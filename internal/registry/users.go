package registry

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"

	"golang.org/x/crypto/bcrypt"

	"github.com/sealift/sealift/internal/filelock"
)

const (
	// bcryptCost makes a guess take some tens of milliseconds.
	bcryptCost = 10
	// maxBcryptCost is the highest that is taken from a file: each step doubles the time, and this
	// one takes seconds.
	maxBcryptCost = 16
	// MaxPassword is how long a password may be, in bytes: bcrypt does not look at more.
	MaxPassword = 72
	// maxName is how long the name of a user may be, in bytes.
	maxName = 128
	// maxUsersFile bounds the file of users, in bytes.
	maxUsersFile = 4 << 20
	// maxKnown bounds how many credentials are remembered that were right.
	maxKnown = 1024
	// maxWaiting bounds how many passwords are checked or wait for it: with one processor, seconds.
	maxWaiting = 64
)

// errCrowded says that too many passwords are being checked.
var errCrowded = errors.New("too many logins at the same time")

// UsersFileError says what is wrong with a line of a file of users.
type UsersFileError struct {
	Path string
	// Line counts from 1.
	Line   int
	Reason string
}

// Error names the line, without its content.
func (e *UsersFileError) Error() string {
	return fmt.Sprintf("users file %q: line %d: %s", e.Path, e.Line, e.Reason)
}

// UserError says that a user's name or password cannot be taken, or that there is no such user.
type UserError struct {
	Name, Reason string
	// Unknown says that there is no such user.
	Unknown bool
}

// Error says why.
func (e *UserError) Error() string { return fmt.Sprintf("user %q: %s", e.Name, e.Reason) }

// parseUsers reads lines "NAME:HASH" with hashes of bcrypt, as 'htpasswd -B' writes them. Empty lines
// and such that begin with # are left out.
func parseUsers(path string, raw []byte) (map[string]string, error) {
	users := map[string]string{}
	n := 0
	for line := range strings.Lines(string(raw)) {
		n++
		name, hash, ok := userLine(line)
		if !ok {
			continue
		}
		bad := func(reason string) error { return &UsersFileError{path, n, reason} }
		if hash == "" {
			return nil, bad("not NAME:HASH")
		}
		if err := checkName(name); err != nil {
			return nil, bad("the name " + err.Reason)
		}
		if _, there := users[name]; there {
			return nil, bad("the name is there twice")
		}
		cost, err := bcrypt.Cost([]byte(hash))
		if err != nil {
			return nil, bad("the password is not a hash of bcrypt, as 'htpasswd -B' makes them")
		}
		if cost > maxBcryptCost {
			return nil, bad(fmt.Sprintf("a hash of cost %d takes too long to check; the highest is %d", cost, maxBcryptCost))
		}
		users[name] = hash
	}
	return users, nil
}

// userLine splits a line; ok is false for one without a user.
func userLine(line string) (name, hash string, ok bool) {
	line = strings.TrimSpace(line)
	if line == "" || strings.HasPrefix(line, "#") {
		return "", "", false
	}
	name, hash, _ = strings.Cut(line, ":")
	return name, hash, true
}

func checkName(name string) *UserError {
	bad := func(reason string) *UserError { return &UserError{Name: name, Reason: reason} }
	switch {
	case name == "":
		return bad("is empty")
	case len(name) > maxName:
		return bad(fmt.Sprintf("is longer than %d bytes", maxName))
	case strings.HasPrefix(name, "#"):
		return bad("begins with #")
	case strings.ContainsFunc(name, func(r rune) bool {
		return r == ':' || r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}):
		return bad("has a colon, a space or what cannot be printed in it")
	}
	return nil
}

// Users are those of a file, which is read again when it changes.
type Users struct {
	path string
	// busy bounds how many hashes are computed at the same time.
	busy chan struct{}
	// waiting counts who waits for that.
	waiting atomic.Int64

	mu sync.Mutex
	// optional says that the file need not be there: as long as it never was, everyone may enter.
	optional bool
	info     fs.FileInfo
	known    *known
	err      error
}

// known are the users of one state of the file.
type known struct {
	hashes map[string]string
	key    [32]byte
	mu     sync.Mutex
	// right are the credentials that were, as digests with a key that nobody else has.
	right map[[32]byte]struct{}
}

// OpenUsers reads the file at path.
func OpenUsers(path string) (*Users, error) {
	u := &Users{path: path, busy: make(chan struct{}, runtime.GOMAXPROCS(0))}
	if _, err := u.current(); err != nil {
		return nil, err
	}
	return u, nil
}

// WatchUsers returns the users of the file at path as soon as it is there. Until then everyone may
// enter; after that, nobody may when it is gone. A *UsersGoneError says that it is gone since an earlier
// start.
func WatchUsers(path string) (*Users, error) {
	u := &Users{path: path, optional: true, busy: make(chan struct{}, runtime.GOMAXPROCS(0))}
	if !u.Open() {
		_, err := u.current()
		return u, err
	}
	if marker := markerOf(path); marker != "" {
		if _, err := os.Lstat(marker); !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(&UsersGoneError{path, marker}, err)
		}
	}
	return u, nil
}

// Open reports whether everyone may enter.
func (u *Users) Open() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.optional {
		return false
	}
	_, err := os.Stat(u.path)
	u.optional = errors.Is(err, fs.ErrNotExist)
	if err == nil {
		// What cannot be written to, such as a read-only medium, does not lose the file either.
		_ = markClosed(u.path)
	}
	return u.optional
}

// UsersGoneError says that there were users and their file is gone: nobody is let in by that.
type UsersGoneError struct {
	// Path is where the file was, Marker the file that says that there was one.
	Path, Marker string
}

// Error names both.
func (e *UsersGoneError) Error() string {
	return fmt.Sprintf("users file %q is gone, but %q says that not everyone may enter", e.Path, e.Marker)
}

// closedName is the file beside that of the users in a store which says that there were users once.
const closedName = "closed"

// markerOf is that file, "" where the users are not in a store: who names another file for them gets
// nobody in without it.
func markerOf(path string) string {
	dir := filepath.Dir(path)
	if filepath.Base(dir) != stateName || filepath.Base(path) != "users" {
		return ""
	}
	return filepath.Join(dir, closedName)
}

// markClosed says for later starts that not everyone may enter.
func markClosed(path string) error {
	marker := markerOf(path)
	if marker == "" {
		return nil
	}
	if _, err := os.Lstat(marker); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return createFile(marker, nil, 0o644)
}

// current are the users as the file says now. Where it cannot be read there are none.
func (u *Users) current() (*known, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	info, err := os.Stat(u.path)
	if err != nil {
		u.info, u.known = nil, nil
		return nil, fmt.Errorf("reading users: %w", err)
	}
	if u.info != nil && os.SameFile(info, u.info) && info.Size() == u.info.Size() && info.ModTime().Equal(u.info.ModTime()) {
		return u.known, u.err
	}
	u.info, u.known = info, nil
	raw, err := readUsers(u.path)
	if err != nil {
		u.info, u.err = nil, err
		return nil, u.err
	}
	hashes, err := parseUsers(u.path, raw)
	if err != nil {
		u.err = err
		return nil, err
	}
	k := &known{hashes: hashes, right: map[[32]byte]struct{}{}}
	if _, err := rand.Read(k.key[:]); err != nil {
		u.info = nil
		return nil, fmt.Errorf("reading users: %w", err)
	}
	u.known, u.err = k, nil
	return k, nil
}

func readUsers(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading users: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	raw, err := io.ReadAll(io.LimitReader(f, maxUsersFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading users: %w", err)
	}
	if len(raw) > maxUsersFile {
		return nil, fmt.Errorf("reading users: %q has more than %d bytes", path, maxUsersFile)
	}
	return raw, nil
}

// verify reports whether the password is that of the user. The error says that it could not be told.
func (u *Users) verify(ctx context.Context, name, password string) (bool, error) {
	k, err := u.current()
	if err != nil {
		return false, err
	}
	if len(password) > MaxPassword {
		return false, nil
	}
	hash, there := k.hashes[name]
	if !there {
		// Those who guess names are not to learn from the time which there are.
		for _, hash = range k.hashes {
			break
		}
	}
	digest := k.digest(name, password)
	if there && k.isRight(digest) {
		return true, nil
	}
	if u.waiting.Add(1) > maxWaiting {
		u.waiting.Add(-1)
		return false, errCrowded
	}
	defer u.waiting.Add(-1)
	select {
	case u.busy <- struct{}{}:
		defer func() { <-u.busy }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	// Of many requests that come together only the first few have had to compute.
	if there && k.isRight(digest) {
		return true, nil
	}
	if bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) != nil || !there {
		return false, nil
	}
	k.setRight(digest)
	return true, nil
}

// hash is that of a user's password; ok is false where there is no such user.
func (u *Users) hash(name string) (hash string, ok bool, err error) {
	k, err := u.current()
	if err != nil {
		return "", false, err
	}
	hash, ok = k.hashes[name]
	return hash, ok, nil
}

func (k *known) digest(name, password string) (d [32]byte) {
	mac := hmac.New(sha256.New, k.key[:])
	// No name has a zero byte in it.
	mac.Write([]byte(name + "\x00" + password))
	mac.Sum(d[:0])
	return d
}

func (k *known) isRight(d [32]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.right[d]
	return ok
}

func (k *known) setRight(d [32]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.right) >= maxKnown {
		clear(k.right)
	}
	k.right[d] = struct{}{}
}

// ListUsers returns the names in the file at path, sorted.
func ListUsers(path string) ([]string, error) {
	raw, err := readUsers(path)
	if err != nil {
		return nil, err
	}
	users, err := parseUsers(path, raw)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(users))
	for name := range users {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// AddUser puts a user into the file at path, which is made where it is not there, or gives the user a
// new password. It reports whether the user was there.
func AddUser(path, name, password string) (was bool, err error) {
	if err := checkName(name); err != nil {
		return false, err
	}
	switch {
	case password == "":
		return false, &UserError{Name: name, Reason: "the password is empty"}
	case len(password) > MaxPassword:
		return false, &UserError{Name: name, Reason: fmt.Sprintf("the password is longer than %d bytes, which is all that bcrypt looks at", MaxPassword)}
	case strings.ContainsRune(password, 0):
		return false, &UserError{Name: name, Reason: "the password has a zero byte in it"}
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcryptCost)
	if err != nil {
		return false, fmt.Errorf("hashing the password: %w", err)
	}
	err = editUsers(path, true, func(lines []string) ([]string, error) {
		line := name + ":" + string(hash) + "\n"
		i := slices.IndexFunc(lines, func(l string) bool { return isUser(l, name) })
		if was = i >= 0; was {
			lines[i] = line
			return lines, nil
		}
		return append(lines, line), nil
	})
	if err == nil {
		err = markClosed(path)
	}
	return was, err
}

// RemoveUser takes a user out of the file at path.
func RemoveUser(path, name string) error {
	return editUsers(path, false, func(lines []string) ([]string, error) {
		left := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return isUser(l, name) })
		if len(left) == len(lines) {
			return nil, &UserError{Name: name, Reason: "there is no such user", Unknown: true}
		}
		return left, nil
	})
}

func isUser(line, name string) bool {
	n, _, ok := userLine(line)
	return ok && n == name
}

// editUsers replaces the file by what edit makes of its lines. Those who edit wait for each other.
func editUsers(path string, create bool, edit func([]string) ([]string, error)) error {
	dir := filepath.Dir(path)
	if create {
		if err := makeDirs(dir); err != nil {
			return fmt.Errorf("writing users: %w", err)
		}
	}
	lock, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("writing users: %w", err)
	}
	defer func() { _ = lock.Close() }() // it was never written to
	if err := filelock.Take(lock); err != nil && !errors.Is(err, filelock.ErrUnsupported) {
		return fmt.Errorf("writing users: locking %q: %w", dir, err)
	}
	raw, err := readUsers(path)
	if err != nil && (!create || !errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	// What is broken is not to be carried on.
	if _, err := parseUsers(path, raw); err != nil {
		return err
	}
	lines := slices.Collect(strings.Lines(string(raw)))
	if n := len(lines); n > 0 && !strings.HasSuffix(lines[n-1], "\n") {
		lines[n-1] += "\n"
	}
	if lines, err = edit(lines); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString(l)
	}
	return replaceFile(path, b.Bytes(), 0o600)
}
