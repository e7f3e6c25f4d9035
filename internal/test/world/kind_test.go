package world

import (
	"net"
	"sync"
	"syscall"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/mail"
	"tarishi/internal/mtasts"
	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

// Fates of a recipient.
const (
	taken   = 'T' // by a server that said so
	told    = 'D' // a DSN, or nobody may be told
	waiting = 'W' // in the queue
)

// kind is a way to be sick.
type kind struct {
	name    string
	fates   string // that its recipients may have when nothing more happens
	prepare func(w *world, domain string)
	section *destination.Rules // of outbound.ini
	silent  bool               // it keeps who asks waiting: nobody waits long
}

// one gives a domain one MX, a server with some options.
func one(options func(w *world) []smtptest.Option) func(*world, string) {
	return func(w *world, domain string) { w.mx(domain, 10, "mx."+domain, w.server(options(w)...)) }
}

// at gives a domain one MX that answers with a at a stage.
func at(stage smtptest.Stage, a smtptest.Action) func(*world, string) {
	return one(func(w *world) []smtptest.Option { return []smtptest.Option{w.sickly(stage, smtptest.Always(a))} })
}

// records lets f make what the DNS says of a domain.
func records(f func(s *dnstest.Server, domain, mx string)) func(*world, string) {
	return func(w *world, domain string) { f(w.dns, domain, "mx."+domain) }
}

// refused is where nobody listens.
const refused = "127.0.1.1:1"

var kinds = []kind{
	// The network.
	{name: "dead", fates: "DW", prepare: func(w *world, d string) { w.mx(d, 10, "mx."+d, w.route(refused)) }},
	{
		name: "expiring", fates: "D", prepare: func(w *world, d string) { w.mx(d, 10, "mx."+d, w.route(refused)) },
		section: &destination.Rules{MaxLifetime: 3 * time.Second},
	},
	{
		name: "patient", fates: "W", prepare: func(w *world, d string) { w.mx(d, 10, "mx."+d, w.route(refused)) },
		section: &destination.Rules{TempFailIntervals: []time.Duration{time.Hour}},
	},
	{name: "blackhole", fates: "DW", prepare: func(w *world, d string) { w.mx(d, 10, "mx."+d, w.route(blackHole(w.t))) }},
	{name: "firstdead", fates: "T", prepare: func(w *world, d string) {
		w.mx(d, 10, "mx1."+d, w.route(refused))
		w.mx(d, 20, "mx2."+d, w.server())
	}},
	{name: "firstaddressdead", fates: "T", prepare: func(w *world, d string) {
		w.mx(d, 10, "mx."+d, w.route(refused))
		w.dns.A("mx."+d, w.server())
	}},

	// The DNS.
	{name: "null", fates: "D", prepare: records(func(s *dnstest.Server, d, _ string) { s.MX(d, 0, ".") })},
	{name: "nxdomain", fates: "D", prepare: records(func(*dnstest.Server, string, string) {})},
	{name: "nothing", fates: "D", prepare: records(func(s *dnstest.Server, d, _ string) { s.TXT(d, "no mail") })},
	{name: "servfail", fates: "DW", prepare: records(func(s *dnstest.Server, d, _ string) { s.Fail(d, dnstest.ServFail) })},
	{name: "lame", fates: "DW", prepare: records(func(s *dnstest.Server, d, _ string) { s.Fail(d, dnstest.Drop) })},
	{name: "slowdns", fates: "T", prepare: func(w *world, d string) {
		w.mx(d, 10, "mx."+d, w.server())
		w.dns.Delay(d, 300*time.Millisecond)
	}},
	{name: "mxwithout", fates: "DW", prepare: records(func(s *dnstest.Server, d, mx string) { s.MX(d, 10, mx) })},
	{name: "mxaddress", fates: "T", prepare: func(w *world, d string) { w.mx(d, 10, w.server(), "") }},
	{name: "mxservfail", fates: "DW", prepare: records(func(s *dnstest.Server, d, mx string) {
		s.MX(d, 10, mx)
		s.Fail(mx, dnstest.ServFail)
	})},
	{name: "loopback", fates: "D", prepare: records(func(s *dnstest.Server, d, mx string) { s.MX(d, 10, mx); s.A(mx, "127.0.0.1") })},
	{name: "ourname", fates: "D", prepare: records(func(s *dnstest.Server, d, _ string) { s.MX(d, 10, me) })},
	{name: "ouraddress", fates: "D", prepare: records(func(s *dnstest.Server, d, mx string) { s.MX(d, 10, mx); s.A(mx, publicIP) })},
	{name: "cnameloop", fates: "DW", prepare: records(func(s *dnstest.Server, d, mx string) { s.CNAME(d, mx); s.CNAME(mx, d) })},

	// Slow, and silent.
	{name: "slow", fates: "T", prepare: one(func(w *world) []smtptest.Option {
		late := w.sickly
		var all []smtptest.Option
		for _, stage := range []smtptest.Stage{smtptest.Connect, smtptest.Hello, smtptest.Mail, smtptest.Rcpt, smtptest.Data, smtptest.Dot} {
			all = append(all, late(stage, func(smtptest.Event) smtptest.Action {
				time.Sleep(50 * time.Millisecond)
				return smtptest.Action{}
			}))
		}
		return all
	})},
	{name: "silent", fates: "DW", silent: true, prepare: at(smtptest.Connect, smtptest.Silence())},
	{name: "halfline", fates: "DW", silent: true, prepare: at(smtptest.Mail, smtptest.HalfLine())},
	{name: "silentdot", fates: "DW", silent: true, prepare: at(smtptest.Dot, smtptest.Silence())},

	// Refusals.
	{name: "greet421", fates: "DW", prepare: at(smtptest.Connect, smtptest.Reply("421 4.3.2 closing").ThenClose())},
	{name: "greet554", fates: "DW", prepare: at(smtptest.Connect, smtptest.Reply("554 5.3.2 no service").ThenClose())},
	{name: "third421", fates: "TDW", prepare: one(func(w *world) []smtptest.Option {
		return []smtptest.Option{w.sickly(smtptest.Mail, func(e smtptest.Event) smtptest.Action {
			if e.Transaction%3 == 0 {
				return smtptest.Reply("421 4.7.0 enough").ThenClose()
			}
			return smtptest.Action{}
		})}
	})},
	{name: "firstdefers", fates: "T", prepare: func(w *world, d string) {
		w.mx(d, 10, "mx1."+d, w.server(w.sickly(smtptest.Dot, smtptest.Always(smtptest.Reply("452 4.3.1 disk full")))))
		w.mx(d, 20, "mx2."+d, w.server())
	}},
	{name: "onemessage", fates: "T", prepare: one(func(w *world) []smtptest.Option {
		return []smtptest.Option{w.sickly(smtptest.Mail, func(e smtptest.Event) smtptest.Action {
			if e.Transaction > 1 {
				return smtptest.Reply("554 5.5.0 one message a connection")
			}
			return smtptest.Action{}
		})}
	})},
	{name: "mail4", fates: "DW", prepare: at(smtptest.Mail, smtptest.Reply("451 4.7.1 not now"))},
	{name: "mail5", fates: "D", prepare: at(smtptest.Mail, smtptest.Reply("553 5.7.1 not you"))},
	{name: "grey", fates: "T", prepare: one(func(w *world) []smtptest.Option {
		return []smtptest.Option{w.sickly(smtptest.Rcpt, onFirst(smtptest.Reply("450 4.2.0 greylisted")))}
	})},
	{name: "users", fates: "TD", prepare: one(func(w *world) []smtptest.Option {
		return []smtptest.Option{w.sickly(smtptest.Rcpt, func(e smtptest.Event) smtptest.Action {
			if unknownUser(e.Address) {
				return smtptest.Reply("550 5.1.1 unknown")
			}
			return smtptest.Action{}
		})}
	})},
	{name: "dot4", fates: "DW", prepare: at(smtptest.Dot, smtptest.Reply("452 4.3.1 disk full"))},
	{name: "dot5", fates: "D", prepare: at(smtptest.Dot, smtptest.Reply("554 5.6.0 spam"))},

	{name: "hangsup", fates: "T", prepare: one(func(w *world) []smtptest.Option {
		return []smtptest.Option{smtptest.TLS(), w.sickly(smtptest.StartTLS, smtptest.Always(smtptest.Close()))}
	})},
	{name: "toomany", fates: "T", prepare: one(func(w *world) []smtptest.Option {
		var mu sync.Mutex
		taken := map[[2]int]int{} // recipients of a transaction
		return []smtptest.Option{w.sickly(smtptest.Rcpt, func(e smtptest.Event) smtptest.Action {
			mu.Lock()
			defer mu.Unlock()
			if taken[[2]int{e.Conn, e.Transaction}]++; taken[[2]int{e.Conn, e.Transaction}] > 1 {
				return smtptest.Reply("552 too many recipients")
			}
			return smtptest.Action{}
		})}
	})},

	// Broken protocol.
	{name: "garbage", fates: "DW", prepare: at(smtptest.Hello, smtptest.Garbage())},
	{name: "garbagercpt", fates: "DW", prepare: at(smtptest.Rcpt, smtptest.Garbage())},
	{name: "resets", fates: "DW", prepare: at(smtptest.Data, smtptest.Reset())},
	{name: "huge", fates: "DW", prepare: at(smtptest.Mail, smtptest.Huge("250"))},
	// The message arrives and nobody says so: it is sent again.
	{name: "cut", fates: "DW", prepare: at(smtptest.Dot, smtptest.Close())},
	// That it may have arrived is a reason not to try the next MX at once.
	{name: "cutfirst", fates: "DW", prepare: func(w *world, d string) {
		w.mx(d, 10, "mx1."+d, w.server(w.sickly(smtptest.Dot, smtptest.Always(smtptest.Close()))))
		w.mx(d, 20, "mx2."+d, w.server())
	}},
	{name: "cutonce", fates: "T", prepare: one(func(w *world) []smtptest.Option {
		return []smtptest.Option{w.sickly(smtptest.Dot, smtptest.First(1, smtptest.Reset()))}
	})},

	// TLS.
	{name: "brokentls", fates: "T", prepare: one(func(w *world) []smtptest.Option {
		return []smtptest.Option{smtptest.TLS(), w.sickly(smtptest.StartTLS, smtptest.Always(smtptest.BreakTLS()))}
	})},
	{
		name: "needstls", fates: "DW", section: &destination.Rules{TLS: mail.TLSEncrypt},
		prepare: one(func(w *world) []smtptest.Option {
			return []smtptest.Option{smtptest.TLS(), w.sickly(smtptest.StartTLS, smtptest.Always(smtptest.BreakTLS()))}
		}),
	},
	{name: "injection", fates: "TDW", prepare: one(func(w *world) []smtptest.Option {
		return []smtptest.Option{smtptest.TLS(), w.sickly(smtptest.StartTLS, smtptest.Always(smtptest.Extra("250 2.0.0 injected\r\n")))}
	})},
	{name: "policy", fates: "DW", prepare: func(w *world, d string) {
		w.mx(d, 10, "mx."+d, w.server())
		w.policies[d] = &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"other." + d}, MaxAge: time.Hour}
	}},
}

// onFirst answers the first event about each address with a.
func onFirst(a smtptest.Action) smtptest.Hook {
	var mu sync.Mutex
	seen := map[string]bool{}
	return func(e smtptest.Event) smtptest.Action {
		mu.Lock()
		defer mu.Unlock()
		if seen[e.Address] {
			return smtptest.Action{}
		}
		seen[e.Address] = true
		return a
	}
}

// unknownUser reports whether the domains of kind "users" have no such mailbox.
func unknownUser(address string) bool { return address[len(address)-len("users0.test")-2] == '7' }

// blackHole is the address of a listener whose queue is full: the kernel answers
// nobody.
func blackHole(t interface {
	Cleanup(func())
	Fatal(...any)
},
) string {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 1, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 1, 1), Port: name.(*syscall.SockaddrInet4).Port}
	for range 8 {
		c, err := net.DialTimeout("tcp", addr.String(), 100*time.Millisecond)
		if err != nil {
			return addr.String()
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue of the black hole does not fill up")
	return ""
}
