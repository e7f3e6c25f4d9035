package session

import (
	"slices"
	"strings"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/receive"
	"tarishi/internal/reply"
	"tarishi/internal/result"
	"tarishi/internal/smtpd"
	"tarishi/internal/smtpd/syntax"
)

// endTransaction ends the transaction, if there is one.
func (s *session) endTransaction() {
	tx := s.tx
	if s.recv != nil {
		s.recv.Discard()
		s.recv = nil
	}
	if tx == nil {
		return
	}

	// Also after a panic in the hook, so that it runs once for each transaction.
	defer func() {
		tx.Discard()
		s.watch.Stop()
		s.tx, s.watch = nil, nil
		s.leaveTransaction()
	}()
	s.runHook(hook.OnResetTransaction, hook.Event{})
}

// answerMail answers MAIL. It begins a transaction; one that is open is reset first.
func (s *session) answerMail(c syntax.Command) {
	// The right to send is checked before the command is read.
	switch {
	case !s.c.Relaying && slices.Contains(s.o.SubmissionPorts, int(s.c.Local.Port())):
		s.refuseSender(c, reply.New(550, "5.7.1", "Authentication required"))
		return
	case s.o.StrictRFC1869 && !s.c.Relaying && !isStrict(c.Argument, "FROM:<"):
		s.refuse(reply.New(501, "5.5.2", "Invalid MAIL FROM parameters"))
		return
	}

	// A command without a path has no sender that the log could show.
	m, bad := syntax.ParseMail(c.Argument, syntax.Offer{SMTPUTF8: s.o.SMTPUTF8, RequireTLS: s.c.TLS.Enabled})
	if bad == nil && s.o.MaxBytes > 0 && m.Size > s.o.MaxBytes {
		bad = receive.ErrTooBig
	}
	switch {
	case bad != nil && m.From.Text == "":
		s.refuse(bad)
		return
	case bad != nil:
		s.refuseSender(c, bad)
		return
	}

	// From here on the command counts as a new transaction, even if it fails.
	s.endTransaction()

	// With no room for the message the client should keep it, before anybody looks at
	// the sender.
	if unwell := s.o.Intake.Room(m.Size); unwell != nil {
		r := reply.From(unwell)
		s.logSender(s.c.ID, m.From.Plain(), r)
		s.respond(hook.Verdict{}, r)
		return
	}
	if bad := s.checkAddress(m.From, m.UTF8, "5.1.7", "MAIL FROM"); bad != nil {
		s.logSender(s.c.ID, syntax.Clean(m.From.Plain()), bad)
		s.respond(hook.Verdict{}, bad)
		return
	}

	// The hook sees the transaction that it may refuse, and so does reset_transaction.
	s.openTransaction(m)
	v := s.runHook(hook.OnMail, hook.Event{Sender: m.From.Address, Params: m.Parameters})
	if v.Code.Denies() {
		text := "sender " + m.From.Address.Path() + " denied"
		r := refusal(v, fault{550, "5.7.1", text}, fault{450, "4.7.1", text})
		s.logSender(string(s.tx.ID), m.From.Address.String(), r)
		s.endTransaction()
		s.respond(v, r)
		return
	}
	r := assent(v, 250, "2.1.0", "sender "+m.From.Address.Path()+" OK")
	s.logSender(string(s.tx.ID), m.From.Address.String(), r)
	s.wire.WriteReply(r)
}

// rewriteInMemory is how large a message may be, in bytes, to be rewritten in memory. A
// larger one goes to a file: the memory of sessions is counted for what clients send,
// not for a second copy of it.
const rewriteInMemory = 64 << 10

// NewBody implements hook.Lender.
func (s *session) NewBody() hook.Body {
	body := s.o.Intake.NewBody()
	if s.tx.Size > rewriteInMemory {
		_ = body.Spill() // Write returns the error too
	}
	return body
}

// openTransaction begins a transaction.
func (s *session) openTransaction(m syntax.Mail) {
	s.c.Transactions++
	// The time of the transaction runs from here on, whatever the client does.
	terms := smtpd.Terms{MinRate: s.o.MinRate, Window: s.o.MinRateWindow}
	if s.o.TransactionTimeout > 0 {
		terms.Until = time.Now().Add(s.o.TransactionTimeout)
	}
	s.watch = s.wire.StartWatch(s.srv.memory, terms)
	s.tx = &hook.Transaction{
		Envelope: mail.Envelope{
			ID: mail.NewID(s.c.ID, s.c.Transactions), From: m.From.Address, Received: time.Now(), Body: m.Body, UTF8: m.UTF8,
			RequireTLS: m.RequireTLS, Return: m.Return, EnvelopeID: m.EnvelopeID, Notes: mail.Notes{},
			Origin: s.origin(),
		},
		Relaying: s.c.Relaying, Results: new(result.Store), Bodies: s,
	}
	s.state = inTransaction
}

// logSender logs the answer to MAIL.
func (s *session) logSender(id, from string, r *reply.Reply) {
	s.o.Mail.Sender(id, s.c.Remote.Addr.Addr(), from, r.Code, r.Text)
}

// refuseSender refuses MAIL before a transaction has begun.
func (s *session) refuseSender(c syntax.Command, r *reply.Reply) {
	_, path, _ := strings.Cut(c.Argument, ":")
	from, _, _ := strings.Cut(strings.TrimSpace(path), " ")
	s.logSender(s.c.ID, syntax.Clean(strings.Trim(from, "<>")), r)
	s.refuse(r)
}

// respond answers MAIL or RCPT, always with an enhanced code, and closes behind a
// hook's refusal if that says so.
func (s *session) respond(v hook.Verdict, r *reply.Reply) {
	whole := *r
	whole.Enhanced = r.Status()
	s.refuse(&whole)
	if v.Code.Disconnects() {
		s.stopReading()
	}
}

func isStrict(arg, prefix string) bool {
	return len(arg) >= len(prefix) && strings.EqualFold(arg[:len(prefix)], prefix)
}

// checkAddress returns the reply to an address that is not acceptable here, nil for
// one that is.
func (s *session) checkAddress(p syntax.Path, utf8 bool, enhanced, what string) *reply.Reply {
	limit := mail.MaxPath
	if s.o.Postel {
		limit = mail.MaxPathRelaxed
	}
	a := p.Address
	switch {
	case p.Err != nil:
		return reply.New(501, enhanced, "Invalid "+what+" address").Because(p.Err)
	case len(a.Path()) > limit:
		return reply.New(501, enhanced, "Invalid "+what+" address: too long")
	case a.IsUTF8() && !utf8:
		return reply.New(553, "5.6.7", "A non-ASCII address needs SMTPUTF8")
	case a.HasHidden():
		return reply.New(501, enhanced, "Invalid "+what+" address: characters that cannot be seen")
	case s.o.StrictDomains && a.Domain != "" && a.Domain[0] != '[' && !mail.IsHostName(a.Domain):
		return reply.New(501, enhanced, "Invalid "+what+" address: underscore in domain")
	}
	return nil
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

// answerRcpt answers RCPT. The bare postmaster (RFC 5321 section 4.5.1) becomes the one of
// this host.
func (s *session) answerRcpt(c syntax.Command) {
	// The path is rewritten before it is read, so that hooks see a whole address.
	arg := c.Argument
	if s.o.StrictRFC1869 && !s.tx.Relaying && !isStrict(arg, "TO:<") {
		s.refuse(reply.New(501, "5.5.2", "Invalid RCPT TO parameters"))
		return
	}
	if bare := "TO:<postmaster>"; isStrict(arg, bare) {
		arg = "TO:<postmaster@" + s.o.Me + ">" + arg[len(bare):]
	}
	m, bad := syntax.ParseRcpt(arg, s.tx.UTF8)
	switch {
	case bad != nil && m.To.Text == "":
		s.refuse(bad)
		return
	case bad != nil:
		counts(bad, &s.tx.Rcpts, &s.c.Rcpts)
		_, to, _ := strings.Cut(m.To.Text, ":")
		s.logRecipient(syntax.Clean(strings.Trim(to, " \t<>")), bad)
		s.refuse(bad)
		return
	}

	// The cheap reasons to refuse come before the hooks.
	r := s.checkAddress(m.To, s.tx.UTF8, "5.1.3", "RCPT TO")
	if r == nil && s.o.MaxRecipients > 0 && len(s.tx.Recipients) >= s.o.MaxRecipients {
		r = reply.New(452, "4.5.3", "Too many recipients")
	}
	var v hook.Verdict
	if r == nil {
		v, r = s.addRecipient(mail.Recipient{Address: m.To.Address, Notify: m.Notify, ORCPT: m.OriginalRecipient}, m.Parameters)
	}

	// Every answer counts, and has its line in the log.
	counts(r, &s.tx.Rcpts, &s.c.Rcpts)
	to := m.To.Address.String()
	if m.To.Err != nil {
		to = syntax.Clean(m.To.Plain())
	}
	s.logRecipient(to, r)
	s.respond(v, r)
}

// logRecipient logs the answer to RCPT.
func (s *session) logRecipient(to string, r *reply.Reply) {
	s.o.Mail.Recipient(string(s.tx.ID), s.c.Remote.Addr.Addr(), s.tx.From.String(), to, r.Code, r.Text)
}

// recipientCost is about how many bytes a recipient takes in memory.
func recipientCost(r mail.Recipient) int64 {
	return int64(256 + len(r.Address.Local) + len(r.Address.Domain) + len(r.ORCPT))
}

// addRecipient takes a recipient in if there is memory and the hooks allow it.
func (s *session) addRecipient(rcpt mail.Recipient, parameters map[string]string) (hook.Verdict, *reply.Reply) {
	// The memory is taken before the hooks run, and stays taken for accepted ones only.
	if !s.watch.ReserveEnvelope(recipientCost(rcpt)) {
		return hook.Verdict{}, receive.ErrNoMemory
	}
	v, r := s.askHooks(rcpt, parameters)
	if r.Positive() {
		s.tx.Recipients = append(s.tx.Recipients, rcpt)
	} else {
		s.watch.ReleaseEnvelope(recipientCost(rcpt))
	}
	return v, r
}

// askHooks runs rcpt and rcpt_ok.
func (s *session) askHooks(rcpt mail.Recipient, parameters map[string]string) (hook.Verdict, *reply.Reply) {
	path := rcpt.Address.Path()
	text := "recipient " + path + " denied"
	hard, soft := fault{550, "5.7.1", text}, fault{450, "4.7.1", text}
	v := s.runHook(hook.OnRcpt, hook.Event{Recipient: rcpt, Params: parameters})
	if v.Code.Denies() {
		return v, refusal(v, hard, soft)
	}

	// Without a plugin that vouches for it only a client that may relay gets through.
	if v.Code != hook.OK && !(s.tx.Relaying && (v.Code == hook.Cont || v.Code == 0)) {
		r := reply.New(550, "5.7.1", "I cannot deliver mail for "+path)
		if v.Text != "" {
			r.Text = v.Text
		}
		return hook.Verdict{}, r
	}

	// The text of the last plugin that had one is the reply.
	ok := s.runHook(hook.OnRcptOK, hook.Event{Recipient: rcpt})
	if ok.Code.Denies() {
		return ok, refusal(ok, hard, soft)
	}
	if ok.Text == "" && ok.Reply == nil {
		ok.Text, ok.Reply = v.Text, v.Reply
	}
	return hook.Verdict{}, assent(ok, 250, "2.1.5", "recipient "+path+" OK")
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
