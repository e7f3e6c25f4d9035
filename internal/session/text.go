package session

import (
	"net/netip"
	"strings"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/receive"
	"tarishi/internal/reply"
	"tarishi/internal/smtpd/syntax"
)

// fault is a point's default refusal.
type fault struct {
	code     int
	enhanced string
	text     string
}

// refusal makes the reply to a verdict that denies: the verdict's own, or the
// default of the point for a permanent or a temporary one.
func refusal(v hook.Verdict, hard, soft fault) *reply.Reply {
	f := hard
	if v.Code == hook.DenySoft || v.Code == hook.DenySoftDisconnect {
		f = soft
	}
	r := reply.New(f.code, f.enhanced, f.text)
	if v.Text != "" {
		r.Text = v.Text

		// A text may bring its own enhanced code, as Haraka's DSN objects do.
		if status, rest, ok := strings.Cut(v.Text, " "); ok {
			if e, ok := reply.ParseEnhanced(status); ok {
				if e[0] == r.Code/100 {
					r.Enhanced = e
				}
				r.Text = rest
			}
		}
	}

	// A whole reply replaces all of it, but a refusal must not read like a success.
	if v.Reply != nil {
		own := *v.Reply
		if own.Text == "" {
			own.Text = r.Text
		}
		if own.Code/100 != 4 && own.Code/100 != 5 {
			own.Code, own.Enhanced = r.Code, r.Enhanced
		}
		r = &own
	}
	return r
}

// assent makes the reply to a verdict that lets pass.
func assent(v hook.Verdict, code int, enhanced, text string) *reply.Reply {
	r := reply.New(code, enhanced, text)
	if v.Text != "" {
		r.Text = v.Text
	}
	if v.Reply != nil && v.Reply.Positive() {
		own := *v.Reply
		if own.Text == "" {
			own.Text = r.Text
		}
		r = &own
	}
	return r
}

// banner returns the text behind 220.
func (s *session) banner(v hook.Verdict) string {
	if v.Text != "" {
		return v.Text
	}
	lines := []string{"Tarishi ready"}
	if s.o.ShowVersion && s.o.Version != "" {
		lines[0] = "Tarishi/" + s.o.Version + " ready"
	}
	if len(s.o.Greeting) > 0 {
		lines = append([]string(nil), s.o.Greeting...)
	}

	// The host's name has to come first (RFC 5321 section 4.2).
	lines[0] = s.o.Me + " ESMTP " + lines[0]
	if n := min(s.o.BannerChars, len(s.c.ID)); n > 0 {
		lines[0] += " (" + s.c.ID[:n] + ")"
	}
	return strings.Join(lines, "\n")
}

// denied puts the connection's id in front of each line of a refusal, where the
// configuration wants that, so that a sender's complaint finds its log lines.
func (s *session) denied(r *reply.Reply) *reply.Reply {
	n := s.o.DenyChars
	if n <= 0 || r.Code < 400 {
		return r
	}
	if n == 1 {
		n = len(s.c.ID)
	}
	host, _, _ := strings.Cut(s.o.Me, ".")
	mark := "[" + s.c.ID[:min(n, len(s.c.ID))] + "@" + host + "] "
	marked := *r
	marked.Text = mark + strings.ReplaceAll(r.Text, "\n", "\n"+mark)
	return &marked
}

// helloText returns the first line of the reply to HELO and EHLO.
func (s *session) helloText() string {
	ip := "[" + s.c.Remote.Addr.Addr().String() + "]"
	if h := s.c.Remote.Host; h != "" && h != nxDomain && h != dnsError {
		ip = syntax.Word(h) + " " + ip
	}
	return s.o.Me + " Hello " + ip + ", " + s.o.Helo
}

// received returns our trace field for the open transaction, or "" when none is
// wanted.
func (s *session) received(now time.Time) string {
	if !s.o.AddReceived {
		return ""
	}
	by := "Tarishi"
	if s.o.ShowVersion && s.o.Version != "" {
		by += "/" + syntax.Word(s.o.Version)
	}
	return receive.Trace{
		Hello: s.c.Hello.Host, Name: s.fromName(), Addr: s.c.Remote.Addr.Addr(), By: s.o.Me, Software: by, With: s.protocol(),
		ID: s.tx.ID, From: s.tx.From, Cipher: s.c.TLS.Cipher, Authenticated: s.c.AuthUser != "", Time: now,
	}.Field()
}

// protocol is the protocol keyword of RFC 3848 and, for SMTPUTF8, RFC 6531 section
// 4.3.
func (s *session) protocol() string {
	p := "SMTP"
	switch {
	case s.tx.UTF8:
		p = "UTF8SMTP"
	case s.c.Hello.Verb == "EHLO":
		p = "ESMTP"
	default:
		return p
	}
	if s.c.TLS.Enabled {
		p += "S"
	}
	if s.c.AuthUser != "" {
		p += "A"
	}
	return p
}

// isLocal is hook.Remote's Local.
func (s *Server) isLocal(a netip.Addr) bool {
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is6() && a.IsPrivate() || s.own.Has(a)
}
