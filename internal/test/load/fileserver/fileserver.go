// Package fileserver is a mail server to measure against, and nothing to use:
// listener, session and intake of the daemon in front of a queue of the usual
// kind, with one file and one fsync for each message. It passes each accepted
// message to one next hop and then removes the file.
//
// It is fast where that is easy: contents stay in memory until they are
// delivered, the folder is not synced, the sender pipelines on kept connections,
// nothing is looked up, logged or tried again. A failure of any kind ends it.
package fileserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/intake"
	"tarishi/internal/listener"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/session"
	"tarishi/internal/session/policy"
)

// Options is what a Server works with.
type Options struct {
	Addr    string // where to listen: ip:port
	Dir     string // of the files; it must exist
	Next    string // host:port of the next hop, which must offer PIPELINING
	Senders int    // connections to Next; 0: 20
}

// Server is one server. Use Listen, then Run.
type Server struct {
	options  Options
	listener *listener.Listener
	sessions *session.Server
	store    *store
}

// Serve is a server as a program: args are its folder, and the host:port of the next hop. It
// prints where it listens.
func Serve(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: FOLDER HOST:PORT")
	}
	s, err := Listen(Options{Addr: "127.0.0.1:0", Dir: args[0], Next: args[1]})
	if err != nil {
		return err
	}
	fmt.Println("listening on", s.Addr())
	return s.Run(ctx)
}

// Listen binds the address.
func Listen(o Options) (*Server, error) {
	if o.Senders == 0 {
		o.Senders = 20
	}
	const me = "file-server.test"
	log := zap.NewNop()
	l, err := listener.Listen(listener.Options{Settings: listener.Settings{Addrs: []string{o.Addr}}, Me: me})
	if err != nil {
		return nil, err
	}
	chain := hook.NewChain([]hook.Registration{{
		Point: hook.OnConnectInit, Plugin: "all may relay", Function: "all",
		Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
			e.Conn.SetRelaying(true)
			return hook.Proceed()
		},
	}}, log)
	s := &Server{options: o, listener: l, store: &store{dir: o.Dir}}
	s.store.more.L = &s.store.mu
	in := intake.New(intake.Options{
		Me: me, Queue: s.store, Dispatcher: s.store, Chain: chain, Mail: maillog.Nop(), Log: log, Now: time.Now,
	})
	s.sessions = session.NewServer(session.Options{Conversation: session.Conversation{
		Settings: policy.Settings{AddReceived: true}, Me: me, Chain: chain, Intake: receiver{in},
	}})
	return s, nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() string { return s.listener.Addrs()[0].String() }

// Run serves until ctx ends, or something fails.
func (s *Server) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	context.AfterFunc(ctx, s.store.stop)
	var senders sync.WaitGroup
	for range s.options.Senders {
		senders.Go(func() {
			if err := s.store.send(ctx, s.options.Next); err != nil {
				fail(err)
			}
		})
	}
	err := s.listener.Run(ctx, func(_ context.Context, c net.Conn, implicitTLS bool) {
		s.sessions.Serve(ctx, c, implicitTLS)
	})
	fail(err)
	end, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.sessions.Shutdown(end) // those that stayed were cut off
	senders.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// receiver gives session bodies in memory.
type receiver struct{ *intake.Intake }

func (receiver) NewBody() session.Body { return &body{} }

type body struct{ bytes []byte }

func (b *body) Write(p []byte) (int, error) {
	b.bytes = append(b.bytes, p...)
	return len(p), nil
}

func (b *body) Content() (mail.Content, error) { return mail.Memory{b.bytes}, nil }
func (b *body) Discard()                       {}
func (b *body) Held() int64                    { return int64(cap(b.bytes)) }
func (b *body) Spill() error                   { return nil }

// store holds messages as files and those to send in a list.
type store struct {
	dir string

	mu      sync.Mutex
	more    sync.Cond
	waiting []message
	stopped bool
}

type message struct {
	env     *mail.Envelope
	content mail.Content
}

// Room implements intake.Queue.
func (s *store) Room(int64) error { return nil }

// path is where a message lies, on the disk before Put returns.
func (s *store) path(id mail.ID) string { return filepath.Join(s.dir, string(id)) }

// Put implements intake.Queue: one file, one fsync.
func (s *store) Put(env *mail.Envelope, c mail.Content) error {
	f, err := os.Create(s.path(env.ID) + ".new")
	if err != nil {
		return err
	}
	defer f.Close()
	var head strings.Builder
	fmt.Fprintf(&head, "%s\n%s\n", env.ID, env.From)
	for _, r := range env.Recipients {
		fmt.Fprintln(&head, r.Address)
	}
	r, err := mail.WithHead([]byte(head.String()), c, 0).Open()
	if err != nil {
		return err
	}
	defer r.Close()
	all, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if _, err := f.Write(all); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.path(env.ID)); err != nil {
		return err
	}
	copied := *env
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, message{&copied, mail.Memory{all[head.Len():]}})
	return nil
}

// Enqueue implements intake.Dispatcher.
func (s *store) Enqueue(mail.Pending) { s.more.Signal() }

func (s *store) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.more.Broadcast()
}

// next waits for a message to send.
func (s *store) next() (message, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) == 0 && !s.stopped {
		s.more.Wait()
	}
	if s.stopped {
		return message{}, false
	}
	m := s.waiting[0]
	s.waiting = s.waiting[1:]
	return m, true
}

// send delivers over one connection until the store stops.
func (s *store) send(ctx context.Context, next string) error {
	var c *client
	for {
		m, ok := s.next()
		if !ok {
			return nil
		}
		if c == nil {
			var err error
			if c, err = dial(ctx, next); err != nil {
				return err
			}
			defer c.close()
		}
		if err := c.send(m); err != nil {
			return fmt.Errorf("%s to %s: %w", m.env.ID, next, err)
		}
		if err := os.Remove(s.path(m.env.ID)); err != nil {
			return err
		}
	}
}
