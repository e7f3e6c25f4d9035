package session

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/authres"
	"tarishi/internal/hook"
	"tarishi/internal/receive"
	"tarishi/internal/reply"
	"tarishi/internal/session/transaction"
	"tarishi/internal/session/verdict"
	"tarishi/internal/smtpd/syntax"
)

var errNoContent = errors.New("intake gave no reply")

// answerData receives a message with DATA (RFC 5321 section 4.1.1.4).
func (s *session) answerData(syntax.Command) {
	if !s.mayTransfer() {
		return
	}
	recv := s.startMessage(true)
	s.wire.Answer(354, "", "go ahead, make my day")
	if err := s.wire.ReadData(recv); err != nil {
		// Nothing is taken of a message that has no end.
		recv.Discard()
		s.breakOff(err)
		return
	}
	s.deliver(recv)
}

// mayTransfer checks that there are recipients and runs hook data. It answers
// if the content may not come.
func (s *session) mayTransfer() bool {
	if len(s.tx.Recipients) == 0 && s.tx.Dropped == 0 {
		// A client that pipelines DATA has not seen yet that all recipients were refused.
		if s.tx.Rcpts != (hook.Counts{}) {
			s.refuse(reply.New(554, "5.5.1", "No valid recipients"))
		} else {
			s.refuse(reply.New(503, "5.5.1", "RCPT required first"))
		}
		return false
	}

	// Plugins decide before the client sends what may be a lot.
	if v := s.RunHook(hook.OnData, hook.Event{}); v.Code.Denies() {
		r := verdict.Refusal(v, verdict.NewDefault(554, "5.7.1", "Message denied"), verdict.NewDefault(451, "4.7.1", "Message denied"))
		s.logMessage(r, "", 0)
		s.turnDown(v, r)
		s.endTransaction()
		return false
	}
	return true
}

// startMessage begins to receive content, with dots as in DATA or without.
func (s *session) startMessage(dots bool) *receive.Message {
	s.tx.Origin.Name = s.named.Name()
	s.state = receiving
	return s.tx.Receive(receive.Options{Received: s.received(), Limit: s.o.MaxBytes, Dots: dots})
}

// breakOff ends a session in the middle of content: no one can tell any more what
// the client means by what follows.
func (s *session) breakOff(err error) {
	// A receiver's error is a reply, the wire's is one of the ways in which reading ends.
	if r := (*reply.Reply)(nil); errors.As(err, &r) {
		s.hangUp(r)
	} else {
		s.giveUp(err)
	}
	s.endTransaction()
}

// readChunkSize reads the argument of BDAT (RFC 3030). The chunk follows the command
// whatever is answered to it; where its length is not known the session ends.
func (s *session) readChunkSize(c syntax.Command) (size int64, last, ok bool) {
	size, last, ok = syntax.ParseChunk(c.Argument)
	if !ok || s.o.MaxBytes > 0 && size > s.o.MaxBytes+receive.MaxExcess {
		s.hangUp(reply.New(501, "5.5.4", "Malformed BDAT command"))
		return 0, false, false
	}
	return size, last, true
}

// skipBdat answers BDAT where there is no transaction, and drops the chunk.
func (s *session) skipBdat(c syntax.Command) {
	if size, _, ok := s.readChunkSize(c); ok {
		contentLater(s, c)
		s.skipChunk(size)
	}
}

func (s *session) skipChunk(size int64) {
	if err := s.wire.SkipChunk(size); err != nil {
		s.breakOff(err)
	}
}

// firstChunk receives the first chunk of a message.
func (s *session) firstChunk(c syntax.Command) {
	size, last, ok := s.readChunkSize(c)
	switch {
	case !ok:
	case s.mayTransfer():
		// The message stays open between chunks, in which other commands may come.
		s.tx.Incoming = s.startMessage(false)
		s.receiveChunk(size, last)
	case s.state != closing:
		// The chunk follows the command even where that is refused.
		s.skipChunk(size)
	}
}

// nextChunk receives a further one.
func (s *session) nextChunk(c syntax.Command) {
	if size, last, ok := s.readChunkSize(c); ok {
		s.receiveChunk(size, last)
	}
}

func (s *session) receiveChunk(size int64, last bool) {
	recv := s.tx.Incoming
	err := s.wire.ReadChunk(size, last, recv)
	switch {
	case err != nil:
		s.breakOff(err)
	case last || recv.HasFailed():
		// A message that has failed is answered at once: its further chunks would be
		// read in vain.
		s.tx.Incoming = nil
		s.deliver(recv)
	default:
		s.wire.Answer(250, "2.0.0", "Continue")
	}
}

// deliver is what follows the end of data: it answers, and ends the transaction.
func (s *session) deliver(recv *receive.Message) {
	defer recv.Discard()
	began := time.Now()
	tx := s.tx
	err := tx.Finish(recv, s.o.MaxReceived, s.o.CleanAuthResults)
	s.c.Bytes += tx.Size

	// Plugins and the intake see only what arrived whole and within the limits.
	var v hook.Verdict
	var r *reply.Reply
	switch {
	case errors.Is(err, receive.ErrTooBig):
		r = receive.ErrTooBig
		if over := s.RunHook(hook.OnMaxDataExceeded, hook.Event{}); over.Code == hook.DenySoft || over.Code == hook.DenySoftDisconnect {
			r = reply.New(452, "4.3.4", receive.ErrTooBig.Text)
		}
	case err != nil:
		r = reply.From(err)
		if r.Cause != nil {
			s.srv.o.Log.Error("message not taken", zap.String("uuid", string(tx.ID)), zap.Error(r))
		}
	default:
		v, r = s.settle(tx)
	}

	// The log has the message as plugins have left it.
	transaction.Count(r, &s.c.Messages)
	mid := ""
	if tx.Header != nil {
		mid = tx.Header.Get("Message-Id")
	}
	s.logMessage(r, mid, time.Since(began))

	// The promise is not kept back for the commands that are pipelined behind it.
	s.turnDown(v, r)
	if r.Positive() {
		s.refused = 0
		_ = s.wire.FlushReplies()
	}
	s.endTransaction()
}

// settle runs data_post and lets the intake decide.
func (s *session) settle(tx *transaction.Transaction) (hook.Verdict, *reply.Reply) {
	// What TLS the client wants for its message on the way is the message's from here on.
	tx.TLSOptional = !tx.RequireTLS && tx.Header.MakesTLSOptional()

	// No plugin, and nobody after us, may take for ours what the client has written.
	tx.Header.RenameIf(authres.FieldName, authres.OldName, func(value string) bool { return authres.IsForged(value, s.c.Me) })
	v := s.RunHook(hook.OnDataPost, hook.Event{})
	if v.Code.Denies() {
		return v, verdict.Refusal(v, verdict.NewDefault(550, "5.7.1", "Message denied"), verdict.NewDefault(450, "4.7.1", "Message denied temporarily"))
	}

	if found := authres.Format(s.c.Me, tx.AuthResults); found != "" {
		tx.Header.AddLeading(authres.FieldName, found)
	}

	// From here on somebody may have taken responsibility: only the reply says so.
	r, v := s.o.Intake.Accept(s.ctx, s.c, &tx.Transaction)
	if r == nil {
		r = reply.From(errNoContent)
	}
	if r.Positive() {
		s.RunHook(hook.OnQueueOK, hook.Event{Text: r.Text})
	}
	return v, r
}

// logMessage logs the answer to a message.
func (s *session) logMessage(r *reply.Reply, messageID string, delay time.Duration) {
	t := s.tx
	s.srv.o.Mail.Message(string(t.ID), s.c.Remote.Addr.Addr(), messageID, t.Size, [3]int{t.Rcpts.Accepted, t.Rcpts.Deferred, t.Rcpts.Rejected},
		delay, r.Code, r.Text)
}
