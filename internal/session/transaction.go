package session

import (
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// guard turns a panic below go-smtp into the reply 421. It is deferred.
func (s *session) guard(where string, err *error) {
	if v := recover(); v != nil {
		s.srv.panics.Add(1)
		s.log().Error("panic", zap.String("in", where), zap.Any("value", v), zap.ByteString("stack", debug.Stack()))
		s.over, s.linger = true, true
		*err = wire(reply.New(421, "4.3.0", "Internal server error"))
	}
}

// reset ends the transaction, if there is one.
func (s *session) reset() {
	tx := s.tx
	if s.recv != nil {
		s.recv.discard()
		s.recv = nil
	}
	if tx == nil {
		return
	}
	defer func() { // also after a panic: once for each transaction
		if s.mem.drop() {
			s.io.stay()
		}
		s.tx, s.mem, s.io.pace = nil, nil, nil
	}()
	s.run(hook.OnResetTransaction, hook.Event{})
}

// checkMail answers what go-smtp would answer wrongly, or not at all. go-smtp gets
// the path; parameters are read here.
func (s *session) checkMail() []byte {
	switch {
	case s.c.Hello.Verb == "":
		s.refuse(503, "5.5.1", "Use EHLO/HELO before MAIL")
		return nil
	case s.recv != nil:
		s.refuse(503, "5.5.1", "MAIL not allowed during message transfer")
		return nil
	case !s.c.Relaying && slices.Contains(s.o.SubmissionPorts, int(s.c.Local.Port())):
		s.refuseSender(reply.New(550, "5.7.1", "Authentication required"))
		return nil
	case s.o.StrictRFC1869 && !s.c.Relaying && !isStrict(s.command, "FROM:<"):
		s.refuse(501, "5.5.2", "Invalid MAIL FROM parameters")
		return nil
	}
	path, list, ok := cutPath(s.command)
	if !ok {
		s.refuse(501, "5.5.2", "Was expecting MAIL arg syntax of FROM:<address>")
		return nil
	}
	p, bad := s.mailParameters(list)
	if bad == nil && s.o.MaxBytes > 0 && p.size > s.o.MaxBytes {
		bad = errTooBig
	}
	if bad != nil {
		s.refuseSender(bad)
		return nil
	}
	s.params = p
	return []byte("MAIL " + path + "\r\n")
}

// refuseSender refuses MAIL before a transaction has begun.
func (s *session) refuseSender(r *reply.Reply) {
	from, _, _ := strings.Cut(strings.TrimSpace(s.path()), " ")
	s.o.Mail.Sender(s.c.ID, s.c.Remote.Addr.Addr(), clean(strings.Trim(from, "<>")), r.Code, r.Text)
	s.io.send(s.denied(r))
}

// checkRcpt is checkMail for RCPT. The bare postmaster (RFC 5321 section 4.5.1)
// becomes the one of this host.
func (s *session) checkRcpt() []byte {
	switch {
	case s.tx == nil:
		s.refuse(503, "5.5.1", "Use MAIL before RCPT")
		return nil
	case s.recv != nil:
		s.refuse(503, "5.5.1", "RCPT not allowed during message transfer")
		return nil
	case s.o.StrictRFC1869 && !s.tx.Relaying && !isStrict(s.command, "TO:<"):
		s.refuse(501, "5.5.2", "Invalid RCPT TO parameters")
		return nil
	}
	const bare = "TO:<postmaster>"
	if len(s.command) >= len(bare) && strings.EqualFold(s.command[:len(bare)], bare) {
		s.command = "TO:<postmaster@" + s.o.Me + ">" + s.command[len(bare):]
	}
	path, list, ok := cutPath(s.command)
	if !ok {
		s.refuse(501, "5.5.2", "Was expecting RCPT arg syntax of TO:<address>")
		return nil
	}
	p, bad := rcptParameters(list, s.tx.UTF8)
	if bad != nil {
		counts(bad, &s.tx.Rcpts, &s.c.Rcpts)
		_, to, _ := strings.Cut(path, ":")
		s.o.Mail.Recipient(string(s.tx.ID), s.c.Remote.Addr.Addr(), s.tx.From.String(), clean(strings.Trim(to, " \t<>")), bad.Code, bad.Text)
		s.io.send(s.denied(bad))
		return nil
	}
	s.params = p
	return []byte("RCPT " + path + "\r\n")
}

func isStrict(arg, prefix string) bool {
	return len(arg) >= len(prefix) && strings.EqualFold(arg[:len(prefix)], prefix)
}

// path returns what stands behind the colon of FROM: or TO:.
func (s *session) path() string {
	_, path, _ := strings.Cut(s.command, ":")
	return path
}

// address reads and checks the path of the current command.
func (s *session) address(flat string, utf8 bool, enhanced, what string) (mail.Address, *reply.Reply) {
	limit := mail.MaxPath
	if s.o.Postel {
		limit = mail.MaxPathRelaxed
	}
	a, err := mailbox(s.path(), flat)
	switch {
	case err != nil:
		return a, reply.New(501, enhanced, "Invalid "+what+" address").Because(err)
	case len(a.Path()) > limit:
		return a, reply.New(501, enhanced, "Invalid "+what+" address: too long")
	case a.IsUTF8() && !utf8:
		return a, reply.New(553, "5.6.7", "A non-ASCII address needs SMTPUTF8")
	case a.HasHidden():
		return a, reply.New(501, enhanced, "Invalid "+what+" address: characters that cannot be seen")
	case s.o.StrictDomains && a.Domain != "" && a.Domain[0] != '[' && !mail.IsHostName(a.Domain):
		return a, reply.New(501, enhanced, "Invalid "+what+" address: underscore in domain")
	}
	return a, nil
}

// Mail implements smtp.Session. It begins a transaction; one that is open is
// reset first.
func (s *session) Mail(from string, _ *smtp.MailOptions) (err error) {
	defer s.guard("mail", &err)
	if s.c.Hello.Verb == "" { // go-smtp remembers a greeting that was refused later
		return wire(reply.New(503, "5.5.1", "Use EHLO/HELO before MAIL"))
	}
	if s.reset(); s.late {
		return s.fails(hook.Verdict{Code: hook.DenySoftDisconnect}, errLate)
	}
	p := s.params
	if unwell := s.o.Intake.Room(p.size); unwell != nil {
		r := reply.From(unwell)
		s.o.Mail.Sender(s.c.ID, s.c.Remote.Addr.Addr(), from, r.Code, r.Text)
		return wire(s.denied(r))
	}
	a, bad := s.address(from, p.utf8, "5.1.7", "MAIL FROM")
	if bad != nil {
		s.o.Mail.Sender(s.c.ID, s.c.Remote.Addr.Addr(), clean(from), bad.Code, bad.Text)
		return wire(s.denied(bad))
	}
	s.c.Transactions++
	s.measure()
	s.tx = &hook.Transaction{
		Envelope: mail.Envelope{
			ID: mail.NewID(s.c.ID, s.c.Transactions), From: a, Received: time.Now(), Body: p.body, UTF8: p.utf8,
			RequireTLS: p.requireTLS, Return: p.ret, EnvelopeID: p.envid, Notes: mail.Notes{},
			Origin: s.origin(),
		},
		Relaying: s.c.Relaying, Results: hook.NewResults(),
	}
	v := s.run(hook.OnMail, hook.Event{Sender: a, Params: p.raw})
	if v.Code.Denies() {
		text := "sender " + a.Path() + " denied"
		r := refusal(v, fault{550, "5.7.1", text}, fault{450, "4.7.1", text})
		s.o.Mail.Sender(string(s.tx.ID), s.c.Remote.Addr.Addr(), a.String(), r.Code, r.Text)
		s.reset()
		return s.fails(v, r)
	}
	r := assent(v, 250, "2.1.0", "sender "+a.Path()+" OK")
	s.o.Mail.Sender(string(s.tx.ID), s.c.Remote.Addr.Addr(), a.String(), r.Code, r.Text)
	s.instead = r
	return nil
}

// measured is what watches a transaction.
type measured struct {
	*stream
	pace  pace
	share share
}

// lately implements owner.
func (m *measured) lately() (int64, time.Duration) { return m.pace.lately() }

// measure begins to watch what a transaction takes of time and memory.
func (s *session) measure() {
	m := &measured{stream: s.io, pace: pace{minRate: s.o.MinRate, window: s.o.MinRateWindow}}
	if s.o.TransactionTimeout > 0 {
		m.pace.until = time.Now().Add(s.o.TransactionTimeout)
	}
	m.share = share{budget: &s.srv.memory, owner: m}
	s.io.pace, s.mem = &m.pace, &m.share
}

// origin tells next hops of the client. Its name follows with the content, when
// there has been time to confirm it.
func (s *session) origin() *mail.Origin {
	o := &mail.Origin{Addr: s.c.Remote.Addr.Addr().Unmap(), Port: int(s.c.Remote.Addr.Port()), Helo: s.c.Hello.Host, Protocol: "SMTP", Login: s.c.AuthUser}
	if s.c.Hello.Verb == "EHLO" {
		o.Protocol = "ESMTP"
	}
	return o
}

// fails returns a hook's refusal to go-smtp and remembers to close behind it.
func (s *session) fails(v hook.Verdict, r *reply.Reply) error {
	s.over = s.over || v.Code.Disconnects()
	s.linger = s.linger || s.over
	return wire(s.denied(r))
}

// Rcpt implements smtp.Session. It answers also what it accepts as an error:
// go-smtp would keep a list of recipients of its own.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) (err error) {
	defer s.guard("rcpt", &err)
	tx := s.tx
	if tx == nil {
		return wire(reply.New(503, "5.5.1", "Use MAIL before RCPT"))
	}
	a, r := s.address(to, tx.UTF8, "5.1.3", "RCPT TO")
	if r == nil && s.o.MaxRecipients > 0 && len(tx.Recipients) >= s.o.MaxRecipients {
		r = reply.New(452, "4.5.3", "Too many recipients")
	}
	rcpt := mail.Recipient{Address: a, Notify: s.params.notify, ORCPT: s.params.orcpt}
	held := s.mem.envelope
	if r == nil && !s.mem.holdEnvelope(held+cost(rcpt)) {
		r = errNoMemory
	}
	var v hook.Verdict
	if r == nil {
		v, r = s.recipient(rcpt)
		tx = s.tx // not the one that a late handler has
	}
	if !r.Positive() {
		s.mem.holdEnvelope(held)
	}
	counts(r, &tx.Rcpts, &s.c.Rcpts)
	s.o.Mail.Recipient(string(tx.ID), s.c.Remote.Addr.Addr(), tx.From.String(), addressOr(a, to), r.Code, r.Text)
	return s.fails(v, r)
}

// cost is about how many bytes a recipient takes in memory.
func cost(r mail.Recipient) int64 {
	return int64(256 + len(r.Address.Local) + len(r.Address.Domain) + len(r.ORCPT))
}

// recipient runs rcpt and rcpt_ok and takes the recipient in if they allow it.
func (s *session) recipient(rcpt mail.Recipient) (hook.Verdict, *reply.Reply) {
	path := rcpt.Address.Path()
	text := "recipient " + path + " denied"
	hard, soft := fault{550, "5.7.1", text}, fault{450, "4.7.1", text}
	v := s.run(hook.OnRcpt, hook.Event{Recipient: rcpt, Params: s.params.raw})
	if v.Code.Denies() {
		return v, refusal(v, hard, soft)
	}
	if v.Code != hook.OK && !(s.tx.Relaying && (v.Code == hook.Cont || v.Code == 0)) {
		r := reply.New(550, "5.7.1", "I cannot deliver mail for "+path)
		if v.Text != "" {
			r.Text = v.Text
		}
		return hook.Verdict{}, r
	}
	ok := s.run(hook.OnRcptOK, hook.Event{Recipient: rcpt})
	if ok.Code.Denies() {
		return ok, refusal(ok, hard, soft)
	}
	if ok.Text == "" && ok.Reply == nil {
		ok.Text, ok.Reply = v.Text, v.Reply
	}
	s.tx.Recipients = append(s.tx.Recipients, rcpt)
	return hook.Verdict{}, assent(ok, 250, "2.1.5", "recipient "+path+" OK")
}

func addressOr(a mail.Address, raw string) string {
	if a.IsNull() {
		return clean(raw)
	}
	return a.String()
}

// counts adds the outcome r to each of the counts.
func counts(r *reply.Reply, all ...*hook.Counts) {
	for _, c := range all {
		switch {
		case r.Positive():
			c.Accepted++
		case r.Temporary():
			c.Deferred++
		default:
			c.Rejected++
		}
	}
}
