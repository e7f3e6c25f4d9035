package session

import (
	"slices"
	"strings"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/receive"
	"tarishi/internal/reply"
	"tarishi/internal/session/policy"
	"tarishi/internal/session/recipient"
	"tarishi/internal/session/transaction"
	"tarishi/internal/session/verdict"
	"tarishi/internal/smtpd/pace"
	"tarishi/internal/smtpd/syntax"
)

// endTransaction ends the transaction, if there is one.
func (s *session) endTransaction() {
	tx := s.tx
	if tx == nil {
		return
	}
	tx.Abandon()

	// Also after a panic in the hook, so that it runs once for each transaction.
	defer func() {
		tx.End()
		s.tx = nil
		s.leaveTransaction()
	}()
	s.RunHook(hook.OnResetTransaction, hook.Event{})
}

// answerMail answers MAIL. It begins a transaction; one that is open is reset first.
func (s *session) answerMail(c syntax.Command) {
	// The right to send is checked before the command is read.
	switch {
	case !s.c.Relaying && slices.ContainsFunc(s.o.SubmissionPorts, s.isReached):
		s.refuseSender(c, reply.New(550, "5.7.1", "Authentication required"))
		return
	case s.o.Clients != nil && !s.c.TLS.Enabled && s.o.Clients.RequiresTLS(s.ports()...):
		s.refuseSender(c, reply.New(530, "5.7.0", "Must issue a STARTTLS command first"))
		return
	case s.o.IsLoose(c.Argument, "FROM:<", s.c.Relaying):
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
	if bad := s.o.CheckAddress(m.From, m.UTF8, "5.1.7", "MAIL FROM"); bad != nil {
		s.logSender(s.c.ID, syntax.Clean(m.From.Plain()), bad)
		s.respond(hook.Verdict{}, bad)
		return
	}

	// The hook sees the transaction that it may refuse, and so does reset_transaction.
	s.openTransaction(m)
	v := s.RunHook(hook.OnMail, hook.Event{Sender: m.From.Address, Params: m.Parameters})
	if v.Code.Denies() {
		text := "sender " + m.From.Address.Path() + " denied"
		r := verdict.Refusal(v, verdict.NewDefault(550, "5.7.1", text), verdict.NewDefault(450, "4.7.1", text))
		s.logSender(string(s.tx.ID), m.From.Address.String(), r)
		s.endTransaction()
		s.respond(v, r)
		return
	}
	r := verdict.Assent(v, 250, "2.1.0", "sender "+m.From.Address.Path()+" OK")
	s.logSender(string(s.tx.ID), m.From.Address.String(), r)
	s.wire.WriteReply(r)
}

// openTransaction begins a transaction.
func (s *session) openTransaction(m syntax.Mail) {
	terms := pace.Terms{MinRate: s.o.MinRate, Window: s.srv.o.MinRateWindow}
	if s.o.TransactionTimeout > 0 {
		terms.Until = time.Now().Add(s.o.TransactionTimeout)
	}
	s.tx = transaction.Begin(transaction.Options{Wire: s.wire, Budget: s.srv.memory, Terms: terms, Storage: s.o.Intake}, s.c, m)
	s.state = inTransaction
}

// logSender logs the answer to MAIL.
func (s *session) logSender(id, from string, r *reply.Reply) {
	s.srv.o.Mail.Sender(id, s.c.Remote.Addr.Addr(), from, r.Code, r.Text)
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

// answerRcpt answers RCPT. The bare postmaster (RFC 5321 section 4.5.1) becomes the one of
// this host.
func (s *session) answerRcpt(c syntax.Command) {
	// The path is rewritten before it is read, so that hooks see a whole address.
	arg := c.Argument
	if s.o.IsLoose(arg, "TO:<", s.tx.Relaying) {
		s.refuse(reply.New(501, "5.5.2", "Invalid RCPT TO parameters"))
		return
	}
	if bare := "TO:<postmaster>"; policy.HasPrefix(arg, bare) {
		arg = "TO:<postmaster@" + s.o.Me + ">" + arg[len(bare):]
	}
	m, bad := syntax.ParseRcpt(arg, s.tx.UTF8)
	switch {
	case bad != nil && m.To.Text == "":
		s.refuse(bad)
		return
	case bad != nil:
		transaction.Count(bad, &s.tx.Rcpts, &s.c.Rcpts)
		_, to, _ := strings.Cut(m.To.Text, ":")
		s.logRecipient(syntax.Clean(strings.Trim(to, " \t<>")), bad)
		s.refuse(bad)
		return
	}

	// The cheap reasons to refuse come before the hooks.
	r := s.o.CheckAddress(m.To, s.tx.UTF8, "5.1.3", "RCPT TO")
	if r == nil && s.o.MaxRecipients > 0 && len(s.tx.Recipients)+s.tx.Dropped >= s.o.MaxRecipients {
		r = reply.New(452, "4.5.3", "Too many recipients")
	}
	var v hook.Verdict
	if r == nil {
		v, r = recipient.Add(s, s.tx, mail.Recipient{Address: m.To.Address, Notify: m.Notify, ORCPT: m.OriginalRecipient}, m.Parameters)
	}

	// Every answer counts, and has its line in the log.
	transaction.Count(r, &s.tx.Rcpts, &s.c.Rcpts)
	to := m.To.Address.String()
	if m.To.Err != nil {
		to = syntax.Clean(m.To.Plain())
	}
	s.logRecipient(to, r)
	s.respond(v, r)
}

// logRecipient logs the answer to RCPT.
func (s *session) logRecipient(to string, r *reply.Reply) {
	s.srv.o.Mail.Recipient(string(s.tx.ID), s.c.Remote.Addr.Addr(), s.tx.From.String(), to, r.Code, r.Text)
}
