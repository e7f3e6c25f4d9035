// Package listener accepts TCP connections on several addresses and hands each
// one to a function, within limits: how many connections in all, how many from
// one client, and how many descriptors stay free for the rest of the daemon. A
// client has one IPv4 address, or as many IPv6 addresses as a /64 holds.
//
// A connection beyond a limit gets 421 4.3.2 and is closed; it never reaches
// the function. A full descriptor table makes the accept loops wait, not end.
//
// Proxies that the settings name hand on the connections of others: each of theirs begins with
// a PROXY header, on every address and before TLS. The function gets it as the client's
// connection (a *proxyproto.Conn), and it is the client's in all limits.
//
// The connections handed over belong to the function: Run does not wait for it.
//
// Addresses and limits can change while connections come in: see Change.
package listener

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	Me      string       // our name at first, for the reply to a connection beyond a limit
	Reserve int          // descriptors kept for queue, delivery and logs; 0: 128
	Mail    *maillog.Log // nil: none
	Log     *zap.Logger  // nil: none

	HeaderTime time.Duration // for a proxy to send its header; 0: 30 s
}

// keepAlive is the period of TCP keep-alive.
const keepAlive = 30 * time.Second

// Listener is a set of bound sockets.
type Listener struct {
	o       Options // without Settings and Me
	reclaim reclaimer
	loops   sync.WaitGroup // accept

	mu       sync.Mutex
	settings Settings
	me       string
	most     int       // connections in all; 0: any number
	sockets  []*socket // in the order of Settings.Addrs
	serve    func(c net.Conn, implicitTLS bool)
	ended    chan struct{} // closed by Close
	closed   bool
	failed   error // why accept loops have ended
	open     int
	perIP    map[netip.Addr]int        // by client
	silent   map[*net.TCPConn]struct{} // of proxies, until their header is here
}

// Listen binds every address of o, as Bind does. If one cannot be bound none stays
// bound and the error names it.
func Listen(o Options) (*Listener, error) {
	if o.Mail == nil {
		o.Mail = maillog.Nop()
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Reserve == 0 {
		o.Reserve = 128
	}
	if o.HeaderTime == 0 {
		o.HeaderTime = headerTime
	}
	l := &Listener{
		o: o, me: o.Me, ended: make(chan struct{}), perIP: map[netip.Addr]int{}, silent: map[*net.TCPConn]struct{}{}, reclaim: reclaimer{free: debug.FreeOSMemory},
	}
	l.o.Settings, l.o.Me = Settings{}, ""
	// The start is a change from nothing.
	first, err := l.prepare(o.Settings)
	if err != nil {
		return nil, err
	}
	first.Apply()
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

// ceiling is how many connections there may be: as many as are configured, but never
// so many that the rest of the daemon finds no descriptor.
func ceiling(most, reserve int) int {
	// Queue, delivery and logs need descriptors too; without them accepted mail could not be
	// kept.
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil || lim.Cur > 1<<30 {
		return most
	}
	free := max(1, int(lim.Cur)-reserve)
	if most == 0 || most > free {
		most = free
	}
	return most
}

// Addrs returns the addresses that are bound in the order of Settings.Addrs, with
// the ports that the system chose where it was asked to.
func (l *Listener) Addrs() []net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]net.Addr, len(l.sockets))
	for i, s := range l.sockets {
		all[i] = s.Addr()
	}
	return all
}

// Run accepts connections and calls serve for each in a separate goroutine,
// with a context that carries ctx's values and not its end. When ctx ends it
// closes the sockets and returns nil after the accept loops are over. serve
// owns the connection and closes it. Run is called once.
func (l *Listener) Run(ctx context.Context, serve func(ctx context.Context, c net.Conn, implicitTLS bool)) error {
	defer l.reclaim.end()
	base := context.WithoutCancel(ctx)

	// From here on sockets that are added begin to accept by themselves.
	l.mu.Lock()
	l.serve = func(c net.Conn, implicitTLS bool) { serve(base, c, implicitTLS) }
	for _, s := range l.sockets {
		l.startAccepting(s)
	}
	l.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-l.ended:
	}
	l.Close()
	l.loops.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// startAccepting begins to accept on a socket, if Run has begun and not ended. The caller
// holds l.mu.
func (l *Listener) startAccepting(s *socket) {
	if l.serve == nil || l.closed {
		return
	}
	s.over = make(chan struct{})
	l.loops.Go(func() {
		defer close(s.over)
		err := l.accept(s)
		if err == nil {
			return
		}
		// One address is lost: the caller has to know.
		l.mu.Lock()
		l.failed = errors.Join(l.failed, err)
		l.mu.Unlock()
		l.Close()
	})
}

// accept is the loop of one socket. It ends with an error when the socket is of no use any
// more, and with nil when it is not wanted any more.
func (l *Listener) accept(s *socket) error {
	var pause time.Duration
	for {
		c, err := s.Accept()
		switch {
		case err == nil:
			pause = 0
			l.receive(s, c)
		case errors.Is(err, net.ErrClosed):
			return nil
		case s.isLeaving():
			l.acceptWaiting(s)
			return nil
		case passing(err):
			// Descriptors or memory come back when something else ends.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.o.Log.Warn("accept failed, trying again", zap.String("address", s.Addr().String()), zap.Error(err), zap.Duration("pause", pause))
			select {
			case <-time.After(pause):
			case <-s.leaving:
			case <-l.ended:
			}
		default:
			return fmt.Errorf("accept on %s: %w", s.Addr(), cause(err))
		}
	}
}

// receive serves a connection, or refuses it.
func (l *Listener) receive(s *socket, c net.Conn) {
	// A proxy is no client: what it may have at a time is for those whose connections it
	// hands on.
	ip := remoteIP(c)
	implicitTLS, isProxy := l.look(s, ip)
	proxied, isTCP := c.(*net.TCPConn)
	if isProxy = isProxy && isTCP; isProxy {
		ip = netip.Addr{}
	}
	if why := l.admit(ip); why != "" {
		l.o.Mail.Refused("", remoteIP(c).String(), why)
		l.refuse(c, implicitTLS, why)
		return
	}
	if isProxy {
		l.loops.Go(func() { l.receiveProxied(proxied, implicitTLS) })
		return
	}
	go func() {
		defer l.release(ip)
		l.serve(c, implicitTLS)
	}()
}

// look reports whether the connections of a socket speak TLS at once, and whether those from
// an address are a proxy's.
func (l *Listener) look(s *socket, ip netip.Addr) (implicitTLS, isProxy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := s.Addr().(*net.TCPAddr)
	implicitTLS = ok && l.settings.SMTPSPort != 0 && a.Port == l.settings.SMTPSPort
	return implicitTLS, l.settings.isProxy(ip)
}

// passing reports whether accept can work again later: the client went away,
// or descriptors or memory are short.
func passing(err error) bool {
	// Each of them says something about this moment or this client, and nothing about the
	// socket.
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

// admit counts a connection in, or says why it may not come in. The zero Addr is that of no
// client yet.
func (l *Listener) admit(ip netip.Addr) (why string) {
	// The limit for all comes first: beyond it no client is to blame.
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.most > 0 && l.open >= l.most {
		return "Too many connections"
	}
	if why = l.countClient(ip); why == "" {
		l.open++
		l.reclaim.noteOpen(l.open)
	}
	return why
}

// countClient counts a connection of a client's, or says why it has too many. The caller
// holds l.mu.
func (l *Listener) countClient(ip netip.Addr) (why string) {
	if !ip.IsValid() {
		return ""
	}
	ip = client(ip)
	if l.settings.MaxPerIP > 0 && l.perIP[ip] >= l.settings.MaxPerIP {
		return "Too many connections from your address"
	}
	l.perIP[ip]++
	return ""
}

// release takes back what admit, or countClient after it, has counted.
func (l *Listener) release(ip netip.Addr) {
	ip = client(ip)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.reclaim.noteOpen(l.open)
	if n := l.perIP[ip]; n > 1 {
		l.perIP[ip] = n - 1
	} else {
		delete(l.perIP, ip)
	}
}

// Open returns how many connections are being served.
func (l *Listener) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// SetMe changes our name, for the reply to a connection beyond a limit.
func (l *Listener) SetMe(me string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.me = me
}

// refuse tells the client why; the few bytes fit a fresh socket, so that it does
// not block the loop.
func (l *Listener) refuse(c net.Conn, implicitTLS bool, why string) {
	defer c.Close()
	if implicitTLS {
		return // no handshake for a connection that we cannot afford
	}
	// The lock is not for a write to the network.
	l.mu.Lock()
	me := l.me
	l.mu.Unlock()
	answer(c, fmt.Sprintf("421 4.3.2 %s %s, try again later\r\n", me, why))
}

// answer sends the only reply that a connection gets.
func answer(c net.Conn, line string) {
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = io.WriteString(c, line)
}

// Close unbinds every address; Run returns.
func (l *Listener) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	close(l.ended)
	for _, s := range l.sockets {
		s.Close()
	}
	for c := range l.silent {
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
}
