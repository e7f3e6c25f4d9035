package load

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy passes TCP connections on and holds every byte back for a while in
// each direction, as a long line does. It has no limit of bandwidth: a piece
// that arrives whole leaves whole. Connecting to it takes no time.
type Proxy struct {
	to    string
	delay time.Duration
	ln    net.Listener
	open  atomic.Int64
}

// ListenProxy binds a loopback port for connections to the address to. A round
// trip takes twice delay.
func ListenProxy(to string, delay time.Duration) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &Proxy{to: to, delay: delay, ln: ln}, nil
}

// Addr is the address that the proxy listens on.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// Port is the port of Addr.
func (p *Proxy) Port() int { return p.ln.Addr().(*net.TCPAddr).Port }

// Open is how many connections are being passed on.
func (p *Proxy) Open() int { return int(p.open.Load()) }

// Run passes connections on until ctx ends and returns when the last is closed.
func (p *Proxy) Run(ctx context.Context) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { p.ln.Close() })
	for {
		near, err := p.ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		conns.Go(func() { p.pass(ctx, near.(*net.TCPConn)) })
	}
}

// pass joins near to a new connection to the target until both directions have
// ended.
func (p *Proxy) pass(ctx context.Context, near *net.TCPConn) {
	p.open.Add(1)
	defer p.open.Add(-1)
	defer near.Close()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", p.to)
	if err != nil {
		return
	}
	far := c.(*net.TCPConn)
	defer far.Close()
	stop := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { late(far, near, p.delay) })
	both.Go(func() { late(near, far, p.delay) })
	both.Wait()
}

// underway bounds what one direction of a connection holds: so many pieces of
// at most 64 KiB. A sender that is further ahead has to wait.
const underway = 1024

type piece struct {
	bytes []byte
	due   time.Time
}

// late copies from one connection to the other, each piece after delay, and
// passes the end on as late.
func late(to, from *net.TCPConn, delay time.Duration) {
	line := make(chan piece, underway)
	var writing sync.WaitGroup
	writing.Go(func() {
		failed := false
		for p := range line {
			if failed { // the reader must not hang
				continue
			}
			time.Sleep(time.Until(p.due))
			if p.bytes == nil {
				to.CloseWrite()
				continue
			}
			if _, err := to.Write(p.bytes); err != nil {
				failed = true
				from.CloseRead()
			}
		}
	})

	// Reading never waits for writing, up to the bound of the channel: a long line holds what is on
	// its way.
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		due := time.Now().Add(delay)
		if n > 0 {
			line <- piece{append([]byte(nil), buf[:n]...), due}
		}
		if err != nil {
			line <- piece{nil, due}
			break
		}
	}
	close(line)
	writing.Wait()
}
