//go:build race

package server

// raced reports whether the race detector watches, which makes everything slow.
const raced = true
