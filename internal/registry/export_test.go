package registry

// LockToPrune locks a store as Prune does.
func LockToPrune(dir string) (release func(), err error) {
	l, err := lockToPrune(dir)
	return l.release, err
}
