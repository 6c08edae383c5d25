//go:build race

package archive_test

// flipStep is how many bits apart the flipped ones are.
const flipStep = 997
