// Package instance runs mail servers as child processes for tests and
// measurements: Tarishi's own binary, Postfix and Haraka, each in a directory of
// its own and on loopback ports. A server that was started here is stopped here;
// the system's own Postfix is never touched.
//
// Errors of a start carry the end of the server's log.
package instance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a running child. Its standard output and error are collected.
type Process struct {
	cmd  *exec.Cmd
	stop *exec.Cmd     // what ends it instead of SIGTERM, if anything
	done chan struct{} // closed when it has been waited for
	err  error         // of Wait, valid after done

	mu    sync.Mutex
	log   bytes.Buffer
	grown chan struct{} // closed and replaced when log grows
}

// Start runs cmd.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{}), grown: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	cmd.WaitDelay = 5 * time.Second // grandchildren may hold the pipes
	return p, p.start()
}

// StartTo runs cmd with its standard error in the caller's hands: Log stays empty.
func StartTo(cmd *exec.Cmd, stderr *os.File) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{}), grown: make(chan struct{})}
	cmd.Stderr = stderr
	return p, p.start()
}

func (p *Process) start() error {
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return nil
}

// Write collects output; it implements io.Writer for the child.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log.Write(b)
	close(p.grown)
	p.grown = make(chan struct{})
	return len(b), nil
}

// Log is what the child has written so far.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// PID is the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the child has ended.
func (p *Process) Exited() <-chan struct{} { return p.done }

// Ended is an error with the end of the log once the child has ended.
func (p *Process) Ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("the server has ended, its log with %q", tail(p.Log()))
	default:
		return nil
	}
}

// Signal sends a signal to the child.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Await waits until ready, which gets the whole log, says true. An error says
// that the child ended or ctx did before.
func (p *Process) Await(ctx context.Context, ready func(log string) bool) error {
	for {
		p.mu.Lock()
		log, grown := p.log.String(), p.grown
		p.mu.Unlock()
		if ready(log) {
			return nil
		}
		select {
		case <-grown:
		case <-p.done:
			if ready(p.Log()) {
				return nil
			}
			return fmt.Errorf("%s ended (%v): %s", p.cmd.Path, p.err, tail(p.Log()))
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; its log ends with: %s", p.cmd.Path, ctx.Err(), tail(p.Log()))
		}
	}
}

// Stop ends the child: with SIGTERM or its own stop command, with SIGKILL when
// ctx ends. It returns the child's exit error, or ctx's when it had to be
// killed.
func (p *Process) Stop(ctx context.Context) error {
	if p.stop != nil {
		if out, err := p.stop.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", p.stop.Path, err, out)
		}
	} else if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		if p.stop != nil {
			return nil // what the stop command does to the child is its own affair
		}
		return p.err
	case <-ctx.Done():
		p.Signal(syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("%s did not end: %w", p.cmd.Path, ctx.Err())
	}
}

// Wait waits for the child to end and returns its exit error, or ctx's.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func tail(log string) string {
	const most = 2000
	if len(log) > most {
		log = log[len(log)-most:]
	}
	return strings.TrimSpace(log)
}
