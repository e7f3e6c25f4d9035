//go:build race

package disk

// racing says that the race detector looks on.
const racing = true
