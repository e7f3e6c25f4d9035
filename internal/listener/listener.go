// Package listener accepts TCP connections on several addresses and hands each
// one to a function, within limits: how many connections in all, how many from
// one client, and how many descriptors stay free for the rest of the daemon. A
// client has one IPv4 address, or as many IPv6 addresses as a /64 holds.
//
// A connection beyond a limit is told 421 4.3.2 and closed; it never reaches
// the function. A full descriptor table makes the accept loops wait, not end.
// The connections handed over belong to whoever serves them: Run does not wait
// for them.
package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/maillog"
)

// Options is where to listen and what the limits are.
type Options struct {
	Settings
	Me      string       // our name, for the reply to a connection beyond a limit
	Reserve int          // descriptors kept for queue, delivery and logs; 0: 128
	Mail    *maillog.Log // nil: none
	Log     *zap.Logger  // nil: none
}

// keepAlive is the period of TCP keep-alive.
const keepAlive = 30 * time.Second

// Listener is a set of bound sockets.
type Listener struct {
	o    Options
	ls   []bound
	most int

	reclaim reclaimer

	mu    sync.Mutex
	open  int
	perIP map[netip.Addr]int // by client
}

type bound struct {
	net.Listener
	implicitTLS bool
}

// Listen binds every address of o, as Bind does. If one cannot be bound none stays
// bound and the error names it.
func Listen(o Options) (*Listener, error) {
	if len(o.Addrs) == 0 {
		return nil, errors.New("listen: no address is configured")
	}
	if o.Mail == nil {
		o.Mail = maillog.Nop()
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Reserve == 0 {
		o.Reserve = 128
	}
	l := &Listener{o: o, most: ceiling(o), perIP: map[netip.Addr]int{}, reclaim: reclaimer{free: debug.FreeOSMemory}}
	if l.most < o.MaxConnections {
		o.Log.Warn("the descriptor limit allows fewer connections than are configured", zap.Int("connections", l.most), zap.Int("configured", o.MaxConnections))
	}
	sockets, err := Bind(o.Addrs, o.Log)
	if err != nil {
		return nil, err
	}
	for _, ln := range sockets {
		b := bound{Listener: ln}
		if a, ok := ln.Addr().(*net.TCPAddr); ok && o.SMTPSPort != 0 {
			b.implicitTLS = a.Port == o.SMTPSPort
		}
		l.ls = append(l.ls, b)
	}
	return l, nil
}

// cause takes the address out of a net.OpError, which would repeat it.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}

// ceiling is how many connections there may be: what is configured, but never
// so many that the rest of the daemon finds no descriptor.
func ceiling(o Options) int {
	most := o.MaxConnections
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil || lim.Cur > 1<<30 {
		return most
	}
	free := max(1, int(lim.Cur)-o.Reserve)
	if most == 0 || most > free {
		most = free
	}
	return most
}

// Addrs returns the addresses that are bound in the order of Settings.Addrs, with
// the ports that the system chose where it was asked to.
func (l *Listener) Addrs() []net.Addr {
	all := make([]net.Addr, len(l.ls))
	for i, b := range l.ls {
		all[i] = b.Addr()
	}
	return all
}

// Run accepts connections and calls serve for each in a goroutine of its own,
// with a context that carries ctx's values and not its end. When ctx ends it
// closes the sockets and returns nil after the accept loops are over. serve
// owns the connection and closes it.
func (l *Listener) Run(ctx context.Context, serve func(ctx context.Context, c net.Conn, implicitTLS bool)) error {
	stop := context.AfterFunc(ctx, l.Close)
	defer stop()
	defer l.Close()
	defer l.reclaim.end()
	var wg sync.WaitGroup
	errs := make([]error, len(l.ls))
	for i, b := range l.ls {
		wg.Go(func() {
			errs[i] = l.accept(ctx, b, serve)
			if errs[i] != nil {
				l.Close() // one address is lost: the caller has to know
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l *Listener) accept(ctx context.Context, b bound, serve func(context.Context, net.Conn, bool)) error {
	base := context.WithoutCancel(ctx)
	var pause time.Duration
	for {
		c, err := b.Accept()
		switch {
		case err == nil:
			pause = 0
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		case passing(err):
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.o.Log.Warn("accept failed, trying again", zap.String("address", b.Addr().String()), zap.Error(err), zap.Duration("pause", pause))
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		default:
			return fmt.Errorf("accept on %s: %w", b.Addr(), cause(err))
		}
		ip := remoteIP(c)
		if why := l.admit(ip); why != "" {
			l.o.Mail.Refused("", ip.String(), why)
			l.refuse(c, b.implicitTLS, why)
			continue
		}
		go func() {
			defer l.release(ip)
			serve(base, c, b.implicitTLS)
		}()
	}
}

// passing reports whether accept can work again later: the client went away,
// or descriptors or memory are short.
func passing(err error) bool {
	for _, e := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.ECONNRESET,
		syscall.EINTR, syscall.EPROTO, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func remoteIP(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// client returns what the connections of ip are counted under: hosts choose among
// the addresses of an IPv6 network as they like (RFC 8981).
func client(ip netip.Addr) netip.Addr {
	if ip.Is6() && !ip.IsLinkLocalUnicast() {
		net, _ := ip.Prefix(64)
		return net.Addr()
	}
	return ip
}

// admit counts a connection in, or says why it may not come in.
func (l *Listener) admit(ip netip.Addr) (why string) {
	ip = client(ip)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.most > 0 && l.open >= l.most:
		return "Too many connections"
	case l.o.MaxPerIP > 0 && l.perIP[ip] >= l.o.MaxPerIP:
		return "Too many connections from your address"
	}
	l.open++
	l.reclaim.noteOpen(l.open)
	l.perIP[ip]++
	return ""
}

func (l *Listener) release(ip netip.Addr) {
	ip = client(ip)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.reclaim.noteOpen(l.open)
	if l.perIP[ip]--; l.perIP[ip] == 0 {
		delete(l.perIP, ip)
	}
}

// Open returns how many connections are being served.
func (l *Listener) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// refuse tells the client why; the few bytes fit a fresh socket, so that it does
// not block the loop.
func (l *Listener) refuse(c net.Conn, implicitTLS bool, why string) {
	defer c.Close()
	if implicitTLS {
		return // no handshake for a connection that we cannot afford
	}
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c, "421 4.3.2 %s %s, try again later\r\n", l.o.Me, why)
}

// Close unbinds every address; Run returns.
func (l *Listener) Close() {
	for _, b := range l.ls {
		b.Close()
	}
}
