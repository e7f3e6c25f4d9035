package smtpclient

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/sending"
)

// Result is what became of a transaction that the server answered.
type Result struct {
	// Replies has one reply for each of the envelope's recipients, never nil:
	// that to its RCPT if it was refused there, else that to MAIL, DATA or the
	// final dot; in LMTP the final one is its own. Recipients may share one.
	Replies       []*reply.Reply
	TLS           string // "none", or such as "TLSv1.3 TLS_AES_128_GCM_SHA256"
	Verified      bool   // as of TLSVerify and TLSMayVerify, the server is who it should be
	Authenticated bool
	Reused        bool   // not the connection's first transaction
	DSN           bool   // the server offers DSN, and has been told what is wanted
	Addr          string // as in Options

	// Begun is set when the server let us begin the content. Repeatable is set when
	// it did not, and what it refused with may be about this connection, which had
	// carried another transaction before: on a new one it may take the same.
	Begun, Repeatable bool
}

// window is how many bytes of commands may be under way without a reply to
// them. It is far below what the sockets between us and the server hold, so
// that we never block in a write while the server blocks in writing replies.
const window = 4 << 10

// Send carries one transaction: env's recipients get content. The error is a
// *Failure; then nothing is known of single recipients, and whether the message
// may yet have been accepted is in its Uncertain. In LMTP a connection that is
// lost between two final replies is no error: the recipients without one get
// 451 4.4.2, with a Failure as its cause.
//
// env must have a recipient. A connection that is not Reusable afterwards is
// closed already.
func (c *Client) Send(ctx context.Context, env *mail.Envelope, content mail.Content) (Result, error) {
	res := Result{TLS: c.tls, Verified: c.sure, Authenticated: c.auth, Reused: c.transactions > 0, DSN: c.ext.DSN, Addr: c.o.Addr}
	if err := ctx.Err(); err != nil {
		return res, c.aborted(StageMail, err)
	}
	if c.broken {
		return res, c.aborted(StageMail, errClosed)
	}
	if len(env.Recipients) == 0 {
		return res, c.report(StageMail, nil, errors.New("no recipients"))
	}
	defer c.watch(ctx)()
	if c.transactions > 0 && c.heard() {
		f := c.failure(StageMail, nil, errUnasked)
		f.lost = true
		return res, f
	}
	if f := c.actFor(env.Origin); f != nil {
		return res, f
	}
	res.Authenticated, res.DSN = c.auth, c.ext.DSN
	t := transaction{c: c, env: env, content: content, replies: make([]*reply.Reply, len(env.Recipients))}
	res.Replies = t.replies
	if f := t.check(); f != nil || t.left == 0 {
		return res, asError(f)
	}
	if err := t.open(); err != nil {
		return res, c.report(StageContent, nil, err)
	}
	defer t.close()
	f := t.run()
	res.Begun, res.Repeatable = t.begun, f == nil && t.outworn()
	c.transactions++
	return res, asError(f)
}

func asError(f *Failure) error {
	if f == nil {
		return nil
	}
	return f
}

// transaction is one Send.
type transaction struct {
	c       *Client
	env     *mail.Envelope
	content mail.Content
	body    io.ReadCloser // nil for a mail.Memory

	from string
	utf8 bool // an address goes out with characters beyond ASCII

	// replies is the result. While commands are under way a nil is a recipient
	// that is accepted or not answered yet.
	replies  []*reply.Reply
	left     int // recipients that were not refused by check
	mail     *reply.Reply
	accepted int
	data     bool // the server waits for content
	begun    bool // it gets some

	chunked  bool     // BDAT, not DATA
	xforward []string // commands

	// Commands count from 0: xforward, MAIL, the recipients not refused by check,
	// DATA unless chunked.
	sent, answered         int
	nextSent, nextAnswered int // from here on in replies
	dataSent               bool
}

// check refuses what this server cannot take, and prepares the sender.
func (t *transaction) check() *Failure {
	x := &t.c.ext
	t.left = len(t.replies)
	if t.env.RequireTLS { // RFC 8689 section 4.2.1; another MX may do
		if !t.c.sure {
			return t.c.report(StageMail, errUnverified, nil)
		}
		if !x.RequireTLS {
			return t.c.report(StageMail, errRequireTLS, nil)
		}
	}
	t.chunked = x.Chunking && t.content.Size() >= chunkedFrom
	if t.c.o.Forwards == mail.XForward && len(x.XForward) > 0 {
		t.xforward = x.xforward(t.env.Origin)
	}
	var ascii, clean bool
	t.from, ascii, clean = x.path(t.env.From)
	t.utf8 = x.SMTPUTF8 && t.env.From.IsUTF8()
	switch {
	case !ascii:
		t.settle(errSenderUTF8)
	case !clean:
		t.settle(errSender)
	case x.MaxSize > 0 && t.content.Size() > x.MaxSize:
		t.settle(errTooBig)
	}
	if t.replies[0] == nil && t.env.UTF8 && !x.SMTPUTF8 {
		utf8, err := headerBeyondASCII(t.content)
		if err != nil {
			return t.c.report(StageContent, nil, err)
		}
		if utf8 {
			t.settle(errHeaderUTF8)
		}
	}
	if t.replies[0] != nil {
		t.left = 0
		return nil
	}
	for i := range t.env.Recipients {
		a := t.env.Recipients[i].Address
		if !a.IsUTF8() {
			continue // whether it is clean is seen when it is sent
		}
		if _, ascii := a.ASCII(); !ascii && !x.SMTPUTF8 {
			t.replies[i] = errRecipientUTF8
			t.left--
		}
		t.utf8 = t.utf8 || x.SMTPUTF8
	}
	return nil
}

// headerBeyondASCII reports whether the header section needs SMTPUTF8.
func headerBeyondASCII(c mail.Content) (bool, error) {
	r, err := c.Open()
	if err != nil {
		return false, err
	}
	defer r.Close()
	lines := bufio.NewReader(r)
	for begun := false; ; {
		part, err := lines.ReadSlice('\n')
		for _, b := range part {
			if b >= utf8.RuneSelf {
				return true, nil
			}
		}
		switch {
		case err == io.EOF, err == nil && !begun && len(bytes.TrimRight(part, "\r\n")) == 0:
			return false, nil
		case err != nil && err != bufio.ErrBufferFull:
			return false, err
		}
		begun = err != nil
	}
}

// settle gives r to every recipient that has no reply.
func (t *transaction) settle(r *reply.Reply) {
	for i := range t.replies {
		if t.replies[i] == nil {
			t.replies[i] = r
		}
	}
}

func (t *transaction) open() (err error) {
	if _, ok := t.content.(mail.Memory); !ok {
		t.body, err = t.content.Open()
	}
	return err
}

func (t *transaction) close() {
	if t.body != nil {
		t.body.Close()
	}
}

// run is the dialogue.
func (t *transaction) run() *Failure {
	c := t.c
	if f := c.reset(); f != nil {
		return f
	}
	c.dirty = true
	f := t.envelope()
	switch {
	case f != nil:
		return f
	case t.mail != nil:
		t.settle(t.mail)
		if t.data { // nonsense, and an empty message if we went on
			c.breakOff()
		}
		return nil
	case t.accepted == 0:
		t.emptyDot()
		return nil
	case !t.data && !t.chunked || c.broken: // DATA refused, or a 421
		return nil
	}
	if c.in.buffered() > 0 {
		return c.wire(StageData, errTooMany)
	}
	t.begun = true
	if !sending.Begin(c.ctx) {
		return c.wire(StageData, c.ctxErr())
	}
	if f = t.transfer(); f == nil || !f.Uncertain {
		sending.Answered(c.ctx)
	}
	return f
}

// transfer sends the content and reads what the server says to it.
func (t *transaction) transfer() *Failure {
	t.c.contentBy = time.Now().Add(t.c.o.BlockTimeout)
	if t.chunked {
		return t.sendChunks()
	}
	if ended, f := t.sendContent(); !ended {
		return f
	}
	return t.verdict()
}

// envelope sends MAIL, RCPT and DATA and reads the replies: one command at a
// time, or with PIPELINING as many as the window holds.
func (t *transaction) envelope() *Failure {
	c := t.c
	for {
		before := t.sent
		t.fill()
		if t.sent > before {
			if t.answered == before {
				if f := c.unasked(t.stage()); f != nil {
					return f
				}
			}
			if err := c.flush(); err != nil {
				return t.lost(err)
			}
		}
		until := t.sent
		if c.ext.Pipelining && !t.dataSent && t.mail == nil && t.sent > before {
			until = before // the batch just sent stays under way
		}
		for t.answered < until {
			if stop, f := t.answer(); stop || f != nil {
				return f
			}
		}
		if t.answered == t.sent && (t.dataSent || t.mail != nil || t.nextSent == len(t.replies) && (t.chunked || t.accepted == 0)) {
			return nil
		}
	}
}

// fill puts the next commands in c.out.
func (t *transaction) fill() {
	c := t.c
	if t.mail != nil {
		return
	}
	for len(c.out) < window && !t.dataSent {
		switch {
		case t.sent < len(t.xforward):
			c.out = append(append(c.out, t.xforward[t.sent]...), "\r\n"...)
		case t.sent == len(t.xforward):
			c.out = t.appendMail(c.out)
		case t.nextSent < len(t.replies):
			i := t.nextSent
			t.nextSent++
			if t.replies[i] != nil {
				continue
			}
			path, _, clean := c.ext.path(t.env.Recipients[i].Address)
			if !clean || path == "" {
				t.replies[i] = errRecipient
				continue
			}
			c.out = t.appendRcpt(c.out, path, &t.env.Recipients[i])
		case t.chunked, t.sent == t.answered && t.accepted == 0:
			return // or nobody wants it
		default:
			c.out = append(c.out, "DATA\r\n"...)
			t.dataSent = true
		}
		t.sent++
		if !c.ext.Pipelining {
			return
		}
	}
}

// stage is that of the command whose reply comes next.
func (t *transaction) stage() Stage {
	switch {
	case t.answered < len(t.xforward):
		return StageXForward
	case t.answered == len(t.xforward):
		return StageMail
	case t.dataSent && t.answered == t.sent-1:
		return StageData
	}
	return StageRecipient
}

// lost reports a broken connection, unless all that matters is known.
func (t *transaction) lost(err error) *Failure {
	f := t.c.wire(t.stage(), err)
	if t.mail != nil || t.stage() == StageData && t.accepted == 0 {
		return nil
	}
	return f
}

// answer reads the reply to one command. stop ends the transaction.
func (t *transaction) answer() (stop bool, f *Failure) {
	c, stage := t.c, t.stage()
	wait := c.o.CommandTimeout
	if stage == StageData {
		wait = c.o.DataTimeout
	}
	if err := c.await(wait); err != nil {
		return true, t.lost(err)
	}
	t.answered++
	class := c.res.class()
	if t.mail != nil { // only to keep replies and commands together
		t.data = t.data || stage == StageData && class == 3
		return c.hungUp(), nil
	}
	switch {
	case stage == StageXForward && c.res.code == 421:
		return true, c.refused(stage)
	case stage == StageXForward && class != 3: // it is for the server's log only
		return false, nil
	case stage == StageMail && class == 2:
		return false, nil
	case stage == StageMail && c.res.code == 421:
		return true, c.refused(stage)
	case stage == StageMail && class >= 4:
		t.mail = c.res.reply()
		return false, nil
	case stage == StageRecipient:
		return t.recipient(class)
	case stage == StageData && class == 3:
		t.data = true
		return false, nil
	case stage == StageData && t.accepted == 0:
		if class == 2 {
			c.breakOff()
		}
		return c.hungUp() || c.broken, nil
	case stage == StageData && c.res.code == 421:
		return true, c.refused(stage)
	case stage == StageData && class >= 4:
		t.settle(c.res.reply())
		return false, nil
	}
	return true, c.unexpected(stage)
}

// recipient takes the reply to one RCPT.
func (t *transaction) recipient(class int) (stop bool, f *Failure) {
	for t.replies[t.nextAnswered] != nil {
		t.nextAnswered++
	}
	i := t.nextAnswered
	t.nextAnswered++
	switch {
	case class == 2:
		t.accepted++
	case class == 3:
		return true, t.c.unexpected(StageRecipient)
	default:
		t.replies[i] = t.c.res.reply()
		if t.c.hungUp() {
			t.settle(t.replies[i])
			return true, nil
		}
	}
	return false, nil
}

// hungUp reports whether the last reply was a 421, after which nobody listens.
func (c *Client) hungUp() bool {
	if c.res.code != 421 {
		return false
	}
	c.breakOff()
	return true
}

// emptyDot ends a DATA that the server began though it refused all recipients
// (RFC 2920 section 3.1). The reply to it changes nothing. An LMTP server has
// none to give, so that there the connection is not worth keeping.
func (t *transaction) emptyDot() {
	c := t.c
	if !t.data || c.broken {
		return
	}
	if c.o.Protocol == mail.LMTP {
		c.breakOff()
		return
	}
	if f := c.command(StageDot, "."); f == nil && !c.hungUp() {
		c.dirty = false
	}
}

// bodies saves the allocation of what copies a message; it holds no state.
var bodies = sync.Pool{New: func() any {
	return &body{dots: dotWriter{buf: make([]byte, 0, bodyBuffer)}}
}}

type body struct {
	dots dotWriter
	read []byte // made when needed
}

// wrote notes that the server has taken n bytes of content, which gives it time
// for more.
func (c *Client) wrote(n int) {
	if c.o.MinRate > 0 {
		c.contentBy = c.contentBy.Add(time.Duration(float64(n) / float64(c.o.MinRate) * float64(time.Second)))
	}
}

// contentTime is how long a step of sending content may take that has most by
// itself.
func (c *Client) contentTime(most time.Duration) time.Duration {
	if c.o.MinRate < 0 {
		return most
	}
	return min(most, time.Until(c.contentBy))
}

// blocks writes content to the connection with a deadline for each block.
type blocks Client

const block = 256 << 10

func (b *blocks) Write(p []byte) (n int, err error) {
	c := (*Client)(b)
	for n < len(p) && err == nil {
		var m int
		c.writeBy(c.contentTime(c.o.BlockTimeout))
		m, err = c.conn.Write(p[n:min(len(p), n+block)])
		c.wrote(m)
		n += m
	}
	return n, err
}

var errEnding = errors.New("given up before the end of the message")

// mayEnd asks whether the message may be sent to its end; the failure says that it
// may not.
func (c *Client) mayEnd() *Failure {
	if sending.MayEnd(c.ctx) {
		return nil
	}
	f := c.wire(StageContent, errEnding)
	f.aborted = true
	return f
}

// sendContent writes the message and the final dot. ended is false when there is
// no reply to wait for: the dot was not sent, or not to the end.
func (t *transaction) sendContent() (ended bool, f *Failure) {
	c := t.c
	b := bodies.Get().(*body)
	defer bodies.Put(b)
	b.dots.reset((*blocks)(c))
	defer b.dots.reset(nil)
	size, local, err := t.copy(b)
	if local == nil && err == nil && size != t.content.Size() {
		local = t.wrongSize(size)
	}
	if local != nil { // never a dot behind half a message
		return false, c.failure(StageContent, nil, local)
	}
	if err != nil {
		return false, t.cutShort(err)
	}
	if b.dots.begun { // else it goes out at once, dot and all
		if stop, f := t.interrupted(); stop {
			return false, f
		}
	}
	if f := c.mayEnd(); f != nil {
		return false, f
	}
	dotted, err := b.dots.finish()
	if err == nil {
		return true, nil
	}
	if !dotted {
		return false, t.cutShort(err)
	}
	f = c.wire(StageDot, err)
	f.Uncertain = true
	return false, f
}

func (t *transaction) wrongSize(size int64) error {
	return fmt.Errorf("content has %d bytes instead of %d", size, t.content.Size())
}

// copy writes the content to b.dots. local is an error in reading it, err one
// of the connection.
func (t *transaction) copy(b *body) (size int64, local, err error) {
	if m, ok := t.content.(mail.Memory); ok {
		for _, p := range m {
			if _, err := b.dots.Write(p); err != nil {
				return size, nil, err
			}
			size += int64(len(p))
		}
		return size, nil, nil
	}
	if b.read == nil {
		b.read = make([]byte, bodyBuffer)
	}
	for {
		n, rerr := t.body.Read(b.read)
		size += int64(n)
		if _, err := b.dots.Write(b.read[:n]); err != nil {
			return size, nil, err
		}
		if rerr == io.EOF {
			return size, nil, nil
		}
		if rerr != nil {
			return size, rerr, nil
		}
	}
}

// cutShort sees to a connection that was lost while content was written: what
// the server said before it closed counts as in interrupted.
func (t *transaction) cutShort(err error) *Failure {
	c := t.c
	if c.ctxErr() == nil {
		c.awaitBy(quitTimeout)
		for c.res.read(&c.in) == nil {
			if c.res.class() >= 4 {
				return t.refusedEarly()
			}
		}
	}
	return c.wire(StageContent, err)
}

// interrupted sees to what the server has said before the message is ended. A
// refusal holds, since the server may have no other: the message is not ended
// then, and the connection of no more use. Whatever else it was would be taken
// for the reply to the end of the message.
func (t *transaction) interrupted() (stop bool, f *Failure) {
	c := t.c
	if !c.heard() {
		return false, nil
	}
	c.awaitBy(time.Second)
	switch err := c.res.read(&c.in); {
	case errors.Is(err, os.ErrDeadlineExceeded) && c.ctxErr() == nil && c.in.buffered() == 0 && c.conn != c.raw:
		return false, nil // of TLS itself
	case err != nil:
		return true, c.wire(StageContent, err)
	case c.res.class() < 4:
		return true, c.unexpected(StageContent)
	}
	return true, t.refusedEarly()
}

// refusedEarly takes the last reply for the server's to a message that it has
// not seen to its end, and never will.
func (t *transaction) refusedEarly() *Failure {
	c := t.c
	if c.res.code == 421 || c.o.Protocol == mail.LMTP { // that of one recipient only
		return c.refused(StageContent)
	}
	c.breakOff()
	t.settle(c.res.reply())
	return nil
}

// verdict reads what the server says to the final dot: one reply, or in LMTP
// one for each recipient accepted (RFC 2033 section 4.2). A reply without end
// counts by its code, since the server has decided: else the message would be
// sent again for ever. The connection is of no more use then, nor are the
// replies behind it in LMTP.
func (t *transaction) verdict() *Failure {
	c := t.c
	known := false
	for i := range t.replies {
		if t.replies[i] != nil {
			continue
		}
		err := c.await(c.o.SubmissionTimeout)
		endless := c.res.decided(err) && c.ctxErr() == nil
		if endless {
			c.breakOff()
			c.res.clip()
			err = nil
		}
		if err == nil && c.res.class() == 3 {
			err = garbled("%s is no reply to the final dot", c.res.reply())
		}
		if err != nil {
			f := c.wire(StageDot, err)
			f.Uncertain = true
			if !known {
				return f
			}
			t.settle(errLastReply.Because(f))
			return nil
		}
		if c.o.Protocol != mail.LMTP {
			if c.res.code == 421 {
				return c.refused(StageDot)
			}
			t.settle(c.res.reply())
			break
		}
		known = true
		t.replies[i] = c.res.reply()
		if c.hungUp() {
			t.settle(t.replies[i])
			return nil
		}
		if endless { // what is buffered belongs to it
			f := c.wire(StageDot, errTooLong)
			f.Uncertain = true
			t.settle(errLastReply.Because(f))
			return nil
		}
	}
	c.dirty = false
	return nil
}

var errLastReply = reply.New(451, "4.4.2", "Connection to the next hop lost before its last reply")
