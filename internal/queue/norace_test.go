//go:build !race

package queue

// racing says that the race detector looks on.
const racing = false
