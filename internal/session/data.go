package session

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/reply"
)

var errNoContent = errors.New("intake gave no reply")

// data receives a message with DATA (RFC 5321 section 4.1.1.4).
func (s *session) data(arg string) {
	switch {
	case arg != "":
		s.refuse(501, "5.5.4", "DATA command should not have any arguments")
		return
	case s.recv != nil:
		s.refuse(503, "5.5.1", "DATA not allowed during message transfer")
		return
	case s.tx == nil:
		s.refuse(503, "5.5.1", "MAIL required first")
		return
	case !s.mayTransfer():
		return
	}
	recv := s.open(true)
	s.io.say(354, "", "go ahead, make my day")
	err := s.io.content(func(b []byte) (int, bool, error) {
		n, done, err := recv.scanner.scan(b, recv)
		if err == nil && recv.overrun() {
			err = errTooBig
		}
		return n, done, err
	}, recv)
	if err != nil {
		recv.discard()
		s.broken(err)
		return
	}
	s.deliver(recv)
}

// mayTransfer checks that there are recipients and runs hook data. It answers
// if the content may not come.
func (s *session) mayTransfer() bool {
	if len(s.tx.Recipients) == 0 {
		if s.tx.Rcpts != (hook.Counts{}) {
			s.refuse(554, "5.5.1", "No valid recipients")
		} else {
			s.refuse(503, "5.5.1", "RCPT required first")
		}
		return false
	}
	if v := s.run(hook.OnData, hook.Event{}); v.Code.Denies() {
		r := refusal(v, fault{554, "5.7.1", "Message denied"}, fault{451, "4.7.1", "Message denied"})
		s.message(r, "", 0)
		s.decline(v, r)
		s.reset()
		return false
	}
	return true
}

func (s *session) open(dots bool) *receiver {
	s.tx.Origin.Name = s.named.name()
	r := newReceiver(s.o.Intake.NewBody(), s.received(time.Now()), s.o.MaxBytes, dots)
	r.mem, r.pace = s.mem, s.io.pace
	r.pace.receive()
	return r
}

// broken ends a session in the middle of content: no one can tell any more what
// the client means by what follows.
func (s *session) broken(err error) {
	if r := (*reply.Reply)(nil); errors.As(err, &r) {
		s.hangUp(r)
	} else {
		s.lost(err)
	}
	s.reset()
}

// bdat receives one chunk of a message (RFC 3030). The chunk follows the command
// whatever is answered to it; where its length is not known the session ends.
func (s *session) bdat(arg string) {
	size, last, ok := chunk(arg)
	if !ok || s.o.MaxBytes > 0 && size > s.o.MaxBytes+maxExcess {
		s.hangUp(reply.New(501, "5.5.4", "Malformed BDAT command"))
		return
	}
	if s.recv == nil {
		switch {
		case s.tx == nil:
			s.refuse(503, "5.5.1", "MAIL required first")
		case s.mayTransfer():
			s.recv = s.open(false)
		}
		if s.recv == nil {
			if !s.over {
				s.skip(size)
			}
			return
		}
	}
	recv := s.recv
	err := s.octets(size, func(b []byte) error {
		_, _, err := recv.scanner.scan(b, recv)
		return err
	}, recv)
	if err == nil && last {
		err = recv.scanner.finish()
	}
	switch {
	case err != nil:
		s.broken(err)
	case last:
		s.recv = nil
		s.deliver(recv)
	case recv.failed != nil: // the rest will not be listened to: say it now
		s.recv = nil
		s.deliver(recv)
	default:
		s.io.say(250, "2.0.0", "Continue")
	}
}

// skip drops a chunk that is not wanted.
func (s *session) skip(size int64) {
	if err := s.octets(size, func([]byte) error { return nil }, nil); err != nil {
		s.broken(err)
	}
}

// octets hands the next left octets to f, piece by piece.
func (s *session) octets(left int64, f func([]byte) error, w waiter) error {
	if left == 0 {
		return nil
	}
	return s.io.content(func(b []byte) (int, bool, error) {
		n := min(int64(len(b)), left)
		left -= n
		return int(n), left == 0, f(b[:n])
	}, w)
}

// deliver is what follows the end of data: it answers, and ends the transaction.
func (s *session) deliver(recv *receiver) {
	defer recv.discard()
	began := time.Now()
	tx := s.tx
	err := recv.finish(tx, s.o.MaxReceived, s.o.CleanAuthResults)
	s.c.Bytes += tx.Size
	var v hook.Verdict
	var r *reply.Reply
	switch {
	case errors.Is(err, errTooBig):
		r = errTooBig
		over := s.run(hook.OnMaxDataExceeded, hook.Event{})
		switch {
		case over.Fresh != nil:
			v, r = over, errLate
		case over.Code == hook.DenySoft || over.Code == hook.DenySoftDisconnect:
			r = reply.New(452, "4.3.4", errTooBig.Text)
		}
	case err != nil:
		r = reply.From(err)
		if r.Cause != nil {
			s.o.Log.Error("message not taken", zap.String("uuid", string(tx.ID)), zap.Error(r))
		}
	default:
		v, r = s.settle(tx)
	}
	tx = s.tx // not the one that a late handler has
	counts(r, &s.c.Messages)
	mid := ""
	if tx.Header != nil {
		mid = tx.Header.Get("Message-Id")
	}
	s.message(r, mid, time.Since(began))
	s.decline(v, r)
	if r.Positive() {
		s.refused = 0
		_ = s.io.flush() // the promise is not kept back for what is pipelined behind it
	}
	s.reset()
}

// settle runs data_post and lets the intake decide.
func (s *session) settle(tx *hook.Transaction) (hook.Verdict, *reply.Reply) {
	v := s.run(hook.OnDataPost, hook.Event{})
	if v.Code.Denies() {
		return v, refusal(v, fault{550, "5.7.1", "Message denied"}, fault{450, "4.7.1", "Message denied temporarily"})
	}
	r, v := s.o.Intake.Accept(s.ctx, s.c, tx)
	s.renew(v)
	if r == nil {
		r = reply.From(errNoContent)
	}
	if r.Positive() {
		s.run(hook.OnQueueOK, hook.Event{Text: r.Text})
	}
	return v, r
}

// message logs the answer to a message.
func (s *session) message(r *reply.Reply, messageID string, delay time.Duration) {
	t := s.tx
	s.o.Mail.Message(string(t.ID), s.c.Remote.Addr.Addr(), messageID, t.Size, [3]int{t.Rcpts.Accepted, t.Rcpts.Deferred, t.Rcpts.Rejected},
		delay, r.Code, r.Text)
}

// chunk reads the argument of BDAT: a size in octets and perhaps LAST.
func chunk(arg string) (size int64, last, ok bool) {
	f := strings.Fields(arg)
	if len(f) == 0 || len(f) > 2 || len(f) == 2 && !strings.EqualFold(f[1], "LAST") {
		return 0, false, false
	}
	u, err := strconv.ParseUint(f[0], 10, 63)
	return int64(u), len(f) == 2, err == nil
}
