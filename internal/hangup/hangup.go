// Package hangup catches SIGHUP from the first moment on. SIGHUP flushes the queue
// of a daemon and would end a process that has not asked for it yet, and a Go
// program spends milliseconds on initialising packages before main can ask.
//
// This package therefore asks when it is initialised itself. Go initialises
// packages in the order of their paths as soon as their imports are, so it imports
// nothing but os/signal and comes before nearly everything else; only main may
// import it.
package hangup

import (
	"os"
	"os/signal"
	"syscall"
)

var signals = func() chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c
}()

// Signals is where SIGHUP arrives, also one that came before main.
func Signals() <-chan os.Signal { return signals }

// Release lets SIGHUP end the process again.
func Release() { signal.Stop(signals) }
