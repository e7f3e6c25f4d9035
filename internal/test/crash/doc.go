// Package crash does to a queue what the world does to it: it kills the
// daemon at random moments under load, fills the disk, and damages every kind
// of file below the queue folder. Then it counts. What was answered with 250
// arrives; what arrives twice was being delivered when the daemon died, or was
// settled in the batch that the death cut off.
//
// The tests run the real binary with clients, next hops and DNS of their own on
// loopback. TARISHI_BIN names the binary; without it they build one.
// TARISHI_CRASH_ROUNDS is how often the daemon is killed (10), TARISHI_CRASH_TIME
// after which time no further round begins, TARISHI_CRASH_SEED repeats a run's
// choices (though not the machine's).
package crash
