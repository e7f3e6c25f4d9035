package session

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/hook"
	"tarishi/internal/maillog"
	"tarishi/internal/proxyproto"
)

// A client cannot say that a proxy has handed it on, at whatever time.
func TestProxyLine(t *testing.T) {
	for _, before := range []string{"", "EHLO client.test\r\n", "EHLO client.test\r\nMAIL FROM:<a@b.test>\r\n"} {
		c := newRig(t, false).dial()
		c.want("220")
		for line := range strings.SplitAfterSeq(before, "\n") {
			if line != "" {
				c.send(line)
				c.want("250")
			}
		}
		c.cmd("PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\nNOOP", "421 4.7.0 PROXY not allowed from 127.0.0.1")
		c.closed()
	}
}

// handedOn is a connection that a proxy has handed on.
type handedOn struct {
	*net.TCPConn
	source, dest net.Addr
}

func (h handedOn) RemoteAddr() net.Addr { return h.source }
func (h handedOn) LocalAddr() net.Addr  { return h.dest }
func (h handedOn) Socket() (proxy, own net.Addr) {
	return h.TCPConn.RemoteAddr(), h.TCPConn.LocalAddr()
}

var _ interface{ Socket() (proxy, own net.Addr) } = (*proxyproto.Conn)(nil)

// serveProxied serves a connection from source to dest that a proxy has handed on, and
// returns its client, which may not pass the banner unseen.
func (r *rig) serveProxied(source, dest string) *client {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { l.Close() })
	r.addr = l.Addr().String()
	c := r.dial()
	conn, err := l.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	from, _ := net.ResolveTCPAddr("tcp", source)
	to, _ := net.ResolveTCPAddr("tcp", dest)
	go r.srv.Serve(context.Background(), handedOn{conn.(*net.TCPConn), from, to}, false)
	return c
}

// The addresses are those that the proxy tells, everywhere; its own stand beside them.
func TestProxied(t *testing.T) {
	core, lines := observer.New(zap.InfoLevel)
	r := prepare(t, func(o *Options) {
		o.Mail, o.SubmissionPorts = maillog.New(zap.New(core)), []int{587}
	})
	var got hook.ConnectionView
	r.hooks.set(hook.OnConnectInit, func(e *hook.Event) hook.Verdict {
		got = e.Conn
		if n := got.Notes(); n.String("proxy.type") != "haproxy" || n.String("proxy.src_ip") != "2001:db8::7" || n.Get("proxy.dst_port") != 587.0 || n.String("proxy.proxy_ip") != "127.0.0.1" {
			t.Errorf("notes %v", n.All())
		}
		return hook.Proceed()
	})
	c := r.serveProxied("[2001:db8::7]:4711", "[2001:db8::25]:587")
	c.want("220")
	if got.Remote().Addr.String() != "[2001:db8::7]:4711" || got.Local().String() != "[2001:db8::25]:587" || got.Proxy().Type != "haproxy" || got.Proxy().Addr.Addr().String() != "127.0.0.1" {
		t.Errorf("%+v %v %+v", got.Remote(), got.Local(), got.Proxy())
	}
	c.cmd("EHLO client.test", "250-mx.test Hello Unknown [2001:db8::7]")
	c.cmd("MAIL FROM:<a@client.test>", "550 5.7.1 Authentication required")
	c.cmd("QUIT", "221")
	c.closed()
	r.finish()
	all := lines.FilterMessage("connect").All()
	if len(all) != 1 || all[0].ContextMap()["ip"] != "2001:db8::7" || all[0].ContextMap()["proxy_ip"] != "127.0.0.1" {
		t.Errorf("%v", all)
	}
}

// Mail on a port for users is theirs alone, whichever port a proxy says was reached.
func TestProxiedSubmission(t *testing.T) {
	r := prepare(t)
	c := r.serveProxied("192.0.2.7:4711", "192.0.2.25:25")
	c.want("220")
	c.cmd("EHLO x", "250")
	c.cmd("MAIL FROM:<a@client.test>", "250")
	c.cmd("QUIT", "221")
	r.finish()

	r = newRig(t, false)
	port := int(netip.MustParseAddrPort(r.addr).Port())
	r.use(func(c *Conversation) { c.SubmissionPorts = []int{port} })
	r.hooks.set(hook.OnConnectInit, func(e *hook.Event) hook.Verdict {
		e.Conn.SetXClient(hook.XClientAddress)
		return hook.Proceed()
	})
	c = r.hello()
	c.cmd("XCLIENT ADDR=192.0.2.7 DESTADDR=192.0.2.25 DESTPORT=25", "220")
	c.cmd("EHLO x", "250")
	c.cmd("MAIL FROM:<a@client.test>", "550 5.7.1 Authentication required")
}

// trusting has the peers of r say by XCLIENT what x allows.
func trusting(t *testing.T, x hook.XClient) *rig {
	r := newRig(t, false)
	r.hooks.set(hook.OnConnectInit, func(e *hook.Event) hook.Verdict {
		e.Conn.SetXClient(x)
		e.Conn.SetRelaying(true)
		return hook.Proceed()
	})
	r.hooks.set(hook.OnCapabilities, func(e *hook.Event) hook.Verdict {
		e.Conn.OfferAuth(users{mechs: []string{"PLAIN"}})
		return hook.Proceed()
	})
	return r
}

func TestXClientRefused(t *testing.T) {
	for _, tc := range []struct {
		trust hook.XClient
		want  string
	}{
		{hook.XClientUnknown, "500 5.5.1 Unrecognized command"},
		{hook.XClientRefused, "550 5.5.0 Not authorized"},
		{hook.XClientAddress, "501 5.5.4 No valid IP address found"},
	} {
		c := trusting(t, tc.trust).hello()
		c.cmd("XCLIENT NAME=x.test", tc.want)
		c.cmd("NOOP", "250")
	}

	c := trusting(t, hook.XClientLogin).hello()
	c.envelope()
	c.cmd("XCLIENT ADDR=192.0.2.1", "503 5.5.0 Mail transaction in progress")
	c.send("BDAT 2\r\n\r\n")
	c.want("250")
	c.cmd("XCLIENT ADDR=192.0.2.1", "503 5.5.0 Mail transaction in progress")
}

// XCLIENT makes the connection another client's: nothing that the peer was allowed is left.
func TestXClient(t *testing.T) {
	r := trusting(t, hook.XClientAddress)
	var seen []string
	r.hooks.set(hook.OnConnect, func(e *hook.Event) hook.Verdict {
		e.Conn.SetXClient(hook.XClientAddress) // the client is a peer that is trusted, too
		seen = append(seen, e.Conn.Remote().Addr.String()+" "+e.Conn.Remote().Host+" "+e.Conn.Local().String()+" "+e.Conn.Hello().Verb+" "+e.Conn.Hello().Host+" "+e.Conn.Proxy().Type)
		if e.Conn.Remote().Addr.Port() == 13 {
			return hook.Answer(hook.DenyDisconnect, "not you")
		}
		return hook.Proceed()
	})
	c := r.hello()
	first := r.hooks.trail()
	c.cmd("XCLIENT NAME=mx.client.test ADDR=IPV6:2001:db8::7 PORT=4711 PROTO=SMTP HELO=helo.test LOGIN=alice DESTADDR=192.0.2.25 DESTPORT=26", "220 mx.test ESMTP")
	if ran := r.hooks.trail()[len(first):]; !slices.Equal(ran, []hook.Point{hook.OnConnect}) {
		t.Errorf("ran %v", ran)
	}
	if want := "[2001:db8::7]:4711 mx.client.test 192.0.2.25:26 HELO helo.test xclient"; seen[1] != want {
		t.Errorf("%q, want %q", seen[1], want)
	}
	c.message("A: b\r\n\r\nx\r\n.\r\n", "250")
	got := r.intake.messages()[0]
	if o := got.tx.Origin; got.tx.Relaying || o.Login != "" || o.Addr.String() != "2001:db8::7" || o.Port != 4711 || o.Helo != "helo.test" || o.Protocol != "SMTP" {
		t.Errorf("%v %+v", got.tx.Relaying, o)
	}
	if !strings.Contains(got.raw, "from helo.test (Unknown [IPv6:2001:db8::7])") || !strings.Contains(got.raw, " with SMTP id ") {
		t.Errorf("%s", got.raw)
	}

	// Another one, without a greeting and a name.
	c.cmd("XCLIENT", "501") // the message before is over
	first = r.hooks.trail()
	c.cmd("XCLIENT ADDR=192.0.2.8", "220 mx.test ESMTP")
	if ran := r.hooks.trail()[len(first):]; !slices.Equal(ran, []hook.Point{hook.OnLookupRDNS, hook.OnConnect}) {
		t.Errorf("ran %v", ran)
	}
	c.cmd("MAIL FROM:<a@client.test>", "503 5.5.1 Use EHLO/HELO")
	c.cmd("EHLO x", "250-mx.test Hello Unknown [192.0.2.8]")

	// And one that is not wanted.
	c.cmd("XCLIENT ADDR=192.0.2.9 PORT=13", "554 5.7.1 not you")
	c.closed()
}

// LOGIN counts from peers that are trusted with it, and for one client only.
func TestXClientLogin(t *testing.T) {
	r := trusting(t, hook.XClientLogin)
	r.hooks.set(hook.OnConnect, func(e *hook.Event) hook.Verdict {
		e.Conn.SetXClient(hook.XClientLogin)
		return hook.Proceed()
	})
	r.use(func(c *Conversation) { c.SubmissionPorts = []int{587} })
	c := r.hello()
	c.cmd("XCLIENT ADDR=192.0.2.7 LOGIN=alice+40client.test DESTPORT=587", "220")
	c.cmd("EHLO x", "250")
	c.message("A: b\r\n\r\nx\r\n.\r\n", "250")
	got := r.intake.messages()[0]
	if !got.tx.Relaying || got.tx.Origin.Login != "alice@client.test" || !strings.Contains(got.raw, "with ESMTPA id") {
		t.Errorf("%+v %s", got.tx.Origin, got.raw)
	}
	c.cmd("AUTH PLAIN AHVzZXIAc2VjcmV0", "503")
	c.cmd("XCLIENT ADDR=192.0.2.8 DESTPORT=587", "220")
	c.cmd("EHLO x", "250")
	c.cmd("MAIL FROM:<a@client.test>", "550 5.7.1 Authentication required")
}

// A proxy may pass on what the client says as it is: the client must not speak for others,
// and gets nothing of what was found out about the proxy.
func TestXClientOnce(t *testing.T) {
	r := trusting(t, hook.XClientLogin)
	r.hooks.set(hook.OnConnect, func(e *hook.Event) hook.Verdict {
		if e.Conn.Proxy().Type == "" {
			e.Conn.Results().Pass("access", "the proxy")
			e.Conn.Notes().Set("kept", true)
		} else if e.Conn.Results().Has("access") || !e.Conn.Notes().Bool("kept") {
			t.Error("the client has the results of the proxy, or no notes")
		}
		return hook.Proceed()
	})
	c := r.hello()
	c.cmd("XCLIENT ADDR=192.0.2.7", "220")
	c.cmd("XCLIENT ADDR=127.0.0.1 LOGIN=alice", "550 5.5.0 Not authorized")
	c.cmd("EHLO x", "250-mx.test Hello Unknown [192.0.2.7]")
	c.cmd("XCLIENT ADDR=127.0.0.1 LOGIN=alice", "550 5.5.0 Not authorized")
	c.message("A: b\r\n\r\nx\r\n.\r\n", "250")
	if got := r.intake.messages()[0]; got.tx.Relaying || got.tx.Origin.Addr.String() != "192.0.2.7" {
		t.Errorf("%v %+v", got.tx.Relaying, got.tx.Origin)
	}
}
