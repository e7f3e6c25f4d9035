package session

import (
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-smtp"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// A reply line may hold 512 octets with code and line end (RFC 5321 section
// 4.5.3.1.5), and more lines than this help nobody.
const (
	maxReplyLine  = 480
	maxReplyLines = 20
)

// clean makes text fit for a reply: plugins put into it what clients sent.
// Lines are separated by "\n".
func clean(text string) string {
	if isPlain(text) {
		return text
	}
	lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
	if len(lines) > maxReplyLines {
		lines = lines[:maxReplyLines]
	}
	for i, line := range lines {
		line = strings.Map(func(r rune) rune {
			if r == utf8.RuneError || mail.IsHidden(r) {
				return '?'
			}
			return r
		}, strings.TrimRight(line, "\r"))
		if len(line) > maxReplyLine {
			line = strings.ToValidUTF8(line[:maxReplyLine], "")
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}

func isPlain(s string) bool {
	if len(s) > maxReplyLine {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// word makes s fit for a trace field or a name in a reply: visible ASCII
// without what structures a header field, at most 255 octets.
func word(s string) string {
	if len(s) > 255 {
		s = s[:255]
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune(`()<>"\;,`, r) {
			return '?'
		}
		return r
	}, s)
}

// errLate is what a client gets when a plugin outlived its timeout.
var errLate = reply.New(421, "4.3.0", "plugin timeout")

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
	if v.Reply != nil {
		own := *v.Reply
		if own.Text == "" {
			own.Text = r.Text
		}
		if own.Code/100 != 4 && own.Code/100 != 5 { // a refusal must not read like a success
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

// wire turns r into go-smtp's error type. go-smtp writes the enhanced code on
// the last line only; it belongs on each (RFC 2034 section 4).
func wire(r *reply.Reply) *smtp.SMTPError {
	status, text := r.Status(), clean(r.Text)
	if lines := strings.Count(text, "\n"); lines > 0 {
		prefix := status.String() + " "
		text = prefix + strings.Replace(text, "\n", "\n"+prefix, lines-1)
	}
	return &smtp.SMTPError{Code: r.Code, EnhancedCode: smtp.EnhancedCode(status), Message: text}
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

// hello returns the first line of the reply to HELO and EHLO.
func (s *session) hello() string {
	ip := "[" + s.c.Remote.Addr.Addr().String() + "]"
	if h := s.c.Remote.Host; h != "" && h != nxDomain && h != dnsError {
		ip = word(h) + " " + ip
	}
	return s.o.Me + " Hello " + ip + ", " + s.o.Helo
}

// received returns our trace field for the open transaction (RFC 5321 section
// 4.4), or "" when none is wanted. Nothing a client or a resolver said can add
// a line to it.
func (s *session) received(now time.Time) string {
	if !s.o.AddReceived {
		return ""
	}
	by := "Tarishi"
	if s.o.ShowVersion && s.o.Version != "" {
		by += "/" + word(s.o.Version)
	}
	tls, auth := "", ""
	if s.c.TLS.Enabled {
		tls = "\r\n\ttls " + word(s.c.TLS.Cipher)
	}
	if s.c.AuthUser != "" {
		auth = " (authenticated bits=0)"
	}
	return "Received: from " + word(s.c.Hello.Host) + " (" + word(s.fromName()) + " " + literal(s.c.Remote.Addr.Addr()) + ")" +
		"\r\n\tby " + s.o.Me + " (" + by + ") with " + s.with() + " id " + string(s.tx.ID) +
		"\r\n\tenvelope-from " + s.tx.From.Path() + tls + auth + ";" +
		"\r\n\t" + now.Format("Mon, 02 Jan 2006 15:04:05 -0700") + "\r\n"
}

// literal is a as an address literal (RFC 5321 section 4.1.3).
func literal(a netip.Addr) string {
	if a.Is6() {
		return "[IPv6:" + a.String() + "]"
	}
	return "[" + a.String() + "]"
}

// with is the protocol keyword of RFC 3848 and, for SMTPUTF8, RFC 6531 section
// 4.3.
func (s *session) with() string {
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

// isPrivate and isLocal are hook.Remote's Private and Local.
func isPrivate(a netip.Addr) bool {
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsPrivate() || documentation(a)
}

func (s *Server) isLocal(a netip.Addr) bool {
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is6() && a.IsPrivate() || s.isOwn(a)
}

var documentationNets = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
}

func documentation(a netip.Addr) bool {
	for _, p := range documentationNets {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// isReply reports whether err is what wire makes.
func isReply(err error) bool {
	_, ok := err.(*smtp.SMTPError)
	return ok
}
