// Package e2e tests the real binary: it starts the daemon on an instance of its
// own, talks to it over loopback as its users do, with programs that Tarishi
// shares no code with where there are any, and looks at replies, logs, exit
// codes and at what arrives behind it.
//
// Without TARISHI_BIN, a path, the tests build the binary. Programs that are
// not installed are named and their tests skipped; with CI=true they fail.
package e2e
