// Command tarishi is the mail transfer agent: the daemon and the commands that
// set it up and look inside.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "dev"

func main() {
	// SIGHUP means something to the daemon, and may come as soon as its process is
	// there: before anything else, so that it does not end it.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	os.Exit(run(os.Args[1:], streams{os.Stdout, os.Stderr, hangup}))
}
