// Package maillog is the mail log: one method for each thing that can happen
// to a message or a connection, one line for each event. Every line carries
// the id of its connection or transaction as the field id, so that one grep follows
// one message. No line carries a password or a message. Between the log and its
// reader stands a Writer, so that nothing ever waits for the log.
//
// The developers' log is a plain *zap.Logger that is passed to those who need
// it; both usually share one core (see NewCore).
package maillog

import (
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Log writes mail events. Its methods may be called from any goroutine.
type Log struct {
	z      *zap.Logger
	to     []Observer
	fields sync.Pool // of *fields, for one line after another
}

// fields are what a line is made of.
type fields []zap.Field

// New returns a Log that writes to z, and tells observers of events whatever
// z's level is.
func New(z *zap.Logger, to ...Observer) *Log {
	return &Log{z: z, to: to, fields: sync.Pool{New: func() any { return &fields{} }}}
}

// Nop returns a Log that writes nothing.
func Nop() *Log { return New(zap.NewNop()) }

// Connect logs an accepted connection of a client at remote. proxy is what has handed it on;
// invalid: nothing has.
func (l *Log) Connect(id string, remote, local, proxy netip.AddrPort) {
	for _, o := range l.to {
		o.Connected()
	}
	l.connect(id, "", remote, local, proxy)
}

// HandedOver logs that the connection with the id was is that of a client at remote from now
// on.
func (l *Log) HandedOver(id, was string, remote, local, proxy netip.AddrPort) {
	l.connect(id, was, remote, local, proxy)
}

func (l *Log) connect(id, was string, remote, local, proxy netip.AddrPort) {
	l.write(zap.InfoLevel, "connect", func(f fields) fields {
		f = append(f, zap.String("uuid", id), zap.String("ip", remote.Addr().String()), zap.Int("port", int(remote.Port())),
			zap.String("local_ip", local.Addr().String()), zap.Int("local_port", int(local.Port())))
		if proxy.IsValid() {
			f = append(f, zap.String("proxy_ip", proxy.Addr().String()))
		}
		if was != "" {
			f = append(f, zap.String("was", was))
		}
		return f
	})
}

// Refused logs a connection that got no session, and why.
func (l *Log) Refused(id, ip, reason string) {
	for _, o := range l.to {
		o.Refused()
	}
	l.write(zap.InfoLevel, "refused", func(f fields) fields {
		return append(f, zap.String("uuid", id), zap.String("ip", ip), zap.String("reason", reason))
	})
}

// Sender logs the answer to MAIL of a client at ip.
func (l *Log) Sender(id string, ip netip.Addr, from string, code int, msg string) {
	for _, o := range l.to {
		o.Replied(Mail, code)
	}
	l.write(zap.InfoLevel, "sender", func(f fields) fields {
		return append(f, zap.String("uuid", id), refusedClient(ip, code), zap.String("from", from), zap.Int("code", code), zap.String("msg", msg))
	})
}

// Recipient logs the answer to one RCPT of a client at ip.
func (l *Log) Recipient(id string, ip netip.Addr, from, to string, code int, msg string) {
	for _, o := range l.to {
		o.Replied(Rcpt, code)
	}
	l.write(zap.InfoLevel, "recipient", func(f fields) fields {
		return append(f, zap.String("uuid", id), refusedClient(ip, code), zap.String("to", to), zap.String("sender", from),
			zap.Int("code", code), zap.String("msg", msg))
	})
}

// refusedClient is the address of a client that was refused something: programs
// that block addresses look for it in that very line. Else the line connect has it.
func refusedClient(ip netip.Addr, code int) zap.Field {
	if code < 400 {
		return zap.Skip()
	}
	return zap.String("ip", ip.String())
}

// Auth logs an AUTH exchange of a client at ip; code is the reply's.
func (l *Log) Auth(id, ip, mech, user string, code int) {
	for _, o := range l.to {
		o.Replied(Auth, code)
	}
	l.write(zap.InfoLevel, "auth", func(f fields) fields {
		return append(f, zap.String("uuid", id), zap.String("ip", ip), zap.String("mech", mech), zap.String("user", user), zap.Int("code", code))
	})
}

// Message logs the answer to the final dot of a client at ip. rcpts counts accepted, deferred
// and rejected RCPTs; delay is how long hooks, relay or queue took.
func (l *Log) Message(id string, ip netip.Addr, messageID string, size int64, rcpts [3]int, delay time.Duration, code int, msg string) {
	for _, o := range l.to {
		o.Replied(Message, code)
		o.Received(size, delay, code)
	}
	l.write(zap.InfoLevel, "message", func(f fields) fields {
		return append(f, zap.String("uuid", id), refusedClient(ip, code), zap.String("mid", messageID), zap.Int64("size", size),
			zap.Ints("rcpts", rcpts[:]), seconds("delay", delay), zap.Int("code", code), zap.String("msg", msg))
	})
}

// Disconnected is what Disconnect logs.
type Disconnected struct {
	ID, IP, RDNS, Helo   string
	Relay, ESMTP, TLS    bool
	Errors, Transactions int
	Rcpts, Messages      [3]int // accepted, deferred, rejected
	Bytes                int64
	LastReject           string
	Elapsed              time.Duration
}

// Disconnect logs the end of a connection.
func (l *Log) Disconnect(d Disconnected) {
	l.write(zap.InfoLevel, "disconnect", func(f fields) fields {
		return append(f, zap.String("uuid", d.ID), zap.String("ip", d.IP), zap.String("rdns", d.RDNS),
			zap.String("helo", d.Helo), zap.Bool("relay", d.Relay), zap.Bool("esmtp", d.ESMTP), zap.Bool("tls", d.TLS),
			zap.Int("errors", d.Errors), zap.Int("txns", d.Transactions), zap.Ints("rcpts", d.Rcpts[:]),
			zap.Ints("msgs", d.Messages[:]), zap.Int64("bytes", d.Bytes), zap.String("lr", d.LastReject),
			seconds("time", d.Elapsed))
	})
}

// Queued logs a message that is durably in the queue.
func (l *Log) Queued(id, from string, rcpts int, size int64) {
	for _, o := range l.to {
		o.Queued()
	}
	l.write(zap.InfoLevel, "queued", func(f fields) fields {
		return append(f, zap.String("uuid", id), zap.String("from", from), zap.Int("rcpts", rcpts), zap.Int64("size", size))
	})
}

// Delivery tells where an attempt went and how; fields that are not known are
// empty.
type Delivery struct {
	ID, From, Domain, Host, IP string
	Port                       int
	Mode                       string // "SMTP" or "LMTP"
	TLS                        string // "none", or version and cipher
	Policy                     string // the TLS that was wanted: none, may, encrypt, verify, sts, dane
	Verified                   string // what authenticated the server: no, pkix, dane
	Auth                       bool
	Reused                     bool // on a kept connection
	Delay                      time.Duration
	Attempts                   int // with this one
}

func (d *Delivery) append(f fields, to []string, response string) fields {
	return append(f,
		zap.String("uuid", d.ID), zap.String("from", d.From), zap.Strings("to", to), zap.String("domain", d.Domain),
		zap.String("host", d.Host), zap.String("ip", d.IP), zap.Int("port", d.Port), zap.String("mode", d.Mode),
		zap.String("tls", d.TLS), zap.String("policy", d.Policy), zap.String("verified", d.Verified),
		zap.Bool("auth", d.Auth), zap.Bool("reused", d.Reused), seconds("delay", d.Delay),
		zap.Int("attempts", d.Attempts), zap.String("response", response))
}

// Forwarded logs recipients that the relay's next hop took.
func (l *Log) Forwarded(d Delivery, to []string, response string) {
	for _, o := range l.to {
		o.Settled(Relay, Delivered, len(to), d.Delay)
	}
	l.write(zap.InfoLevel, "forwarded", func(f fields) fields { return d.append(f, to, response) })
}

// ForwardFailed logs a relay that the next hop refused or that did not reach it;
// code is the reply's.
func (l *Log) ForwardFailed(d Delivery, to []string, code int, response string) {
	result := Deferred
	if code/100 == 5 {
		result = Failed
	}
	for _, o := range l.to {
		o.Settled(Relay, result, len(to), d.Delay)
	}
	l.write(zap.WarnLevel, "forward failed", func(f fields) fields { return d.append(f, to, response) })
}

// Delivered logs recipients whose message the next hop took.
func (l *Log) Delivered(d Delivery, to []string, response string) {
	for _, o := range l.to {
		o.Settled(Outbound, Delivered, len(to), d.Delay)
	}
	l.write(zap.InfoLevel, "delivered", func(f fields) fields { return d.append(f, to, response) })
}

// Deferred logs recipients that will be tried again at next.
func (l *Log) Deferred(d Delivery, to []string, response string, next time.Time) {
	for _, o := range l.to {
		o.Settled(Outbound, Deferred, len(to), d.Delay)
	}
	l.write(zap.InfoLevel, "deferred", func(f fields) fields { return append(d.append(f, to, response), zap.Time("next", next)) })
}

// Failed logs recipients that are given up: refused, or expired.
func (l *Log) Failed(d Delivery, to []string, response string) {
	for _, o := range l.to {
		o.Settled(Outbound, Failed, len(to), d.Delay)
	}
	l.write(zap.InfoLevel, "failed", func(f fields) fields { return d.append(f, to, response) })
}

// DSN logs a report that was queued for a message's sender; action is that of
// its recipients (RFC 3464 section 2.3.3).
func (l *Log) DSN(id, about, to, action string) {
	for _, o := range l.to {
		o.Reported(action)
	}
	l.write(zap.InfoLevel, "dsn", func(f fields) fields {
		return append(f, zap.String("uuid", id), zap.String("about", about), zap.String("to", to), zap.String("action", action))
	})
}

// NoDSN logs that no report is sent about a failed message, and why.
func (l *Log) NoDSN(about, reason string) {
	l.write(zap.InfoLevel, "no dsn", func(f fields) fields {
		return append(f, zap.String("uuid", about), zap.String("reason", reason))
	})
}

// write writes a line if the level is logged. add appends its fields.
func (l *Log) write(level zapcore.Level, event string, add func(fields) fields) {
	line := l.z.Check(level, event)
	if line == nil {
		return
	}
	f := l.fields.Get().(*fields)
	*f = add((*f)[:0])
	line.Write(*f...)
	clear(*f)
	l.fields.Put(f)
}

func seconds(key string, d time.Duration) zap.Field {
	return zap.Float64(key, float64(d.Round(time.Millisecond).Milliseconds())/1000)
}
