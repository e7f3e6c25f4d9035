// Command tarishi is the mail transfer agent: the daemon and the commands that
// set it up and look inside.
package main

import (
	"os"

	"tarishi/internal/command"
)

// version is set by the linker.
var version = "dev"

func main() {
	title := takeTitle()
	os.Exit(run(os.Args[1:], command.Streams{Out: os.Stdout, Err: os.Stderr, Title: title}))
}
