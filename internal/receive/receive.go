// Package receive takes the content of one message as it arrives: it holds the header
// section, parses it, and streams everything into a Body with our Received field in
// front. Its memory is counted and bounded: see smtpd.Watch.
package receive

import (
	"bytes"
	"io"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpd"
)

const (
	// maxHeader bounds the header section, which is held in memory.
	maxHeader = 1 << 20
	// MaxExcess is how much beyond the size limit is read and dropped before the
	// connection is closed instead.
	MaxExcess = 1 << 30
	// firstLook is how much of a header section without its empty line is collected
	// before it is looked for a line that is no field; see Message.endless.
	firstLook = 4 << 10
	// fieldCost is about what a field of the parsed header takes beside its bytes.
	fieldCost = 32
)

var (
	ErrTooBig         = reply.New(552, "5.3.4", "Message too big!")
	errHeaderTooBig   = reply.New(552, "5.3.4", "Header section too big")
	ErrNoMemory       = reply.New(452, "4.3.1", "Too much mail is arriving, please try again later")
	errReceivedFields = reply.New(550, "5.4.6", "Too many received headers - possible mail loop")
)

// Body takes the bytes of one message. Content ends the writing. Discard drops
// what nobody took over; it may be called at any time, more than once.
type Body interface {
	io.Writer
	Content() (mail.Content, error)
	Discard()
	// Held is how many bytes of memory the body takes. Spill has it take none, from
	// then on; the error is as Write's.
	Held() int64
	Spill() error
}

// Message receives one message. Once it has failed it only counts.
type Message struct {
	// After Finish, if that returned nil.
	Header     *mail.Header
	Content    mail.Content
	HeaderSize int64 // of the header section in Content

	Size int64 // of the content as received, so far

	body  Body
	limit int64  // 0: none
	dots  bool   // it comes with DATA, so its length is not known
	head  []byte // our Received field and the header section, until that is whole
	trace int    // length of our Received field in head
	seen  int    // how much behind that field endless has looked at
	last  byte
	fault error

	watch *smtpd.Watch // nil: nobody counts
	kept  int64        // bytes of memory that Header takes
}

// Options are of one message.
type Options struct {
	Body     Body
	Received string       // our trace field; "": none
	Limit    int64        // of the content, bytes; 0: none
	Dots     bool         // it comes with DATA
	Watch    *smtpd.Watch // of its transaction; nil: nobody counts
}

// New begins to receive a message.
func New(o Options) *Message {
	return &Message{body: o.Body, limit: o.Limit, head: []byte(o.Received), trace: len(o.Received), dots: o.Dots, watch: o.Watch}
}

// HasFailed reports whether the message will not be taken, whatever follows.
func (r *Message) HasFailed() bool { return r.fault != nil }

// Write implements smtpd.Receiver. Faults are reported by Finish, because the client
// does not listen earlier; only one that goes on and on gets an error.
func (r *Message) Write(b []byte) (int, error) {
	n := len(b)
	if n == 0 {
		return 0, nil
	}

	// Size and limits are of all that was received, taken or not.
	r.Size += int64(n)
	r.last = b[n-1]
	if r.limit > 0 && r.Size > r.limit {
		r.failWith(ErrTooBig)
	}
	if r.overrun() {
		return n, ErrTooBig
	}
	if r.fault != nil {
		return n, nil
	}

	// The header section is held back until it is whole, the rest passes through.
	if r.Header == nil {
		b = r.collect(b)
	}
	if len(b) > 0 && r.fault == nil {
		r.writeBody(b)
	}
	r.account()
	return n, nil
}

// account sees that the message has the memory that it holds. A body that finds none
// goes to a file, as that of a slow message does when memory gets short. A header
// section has to be in memory: slower clients give way to it, or it fails.
func (r *Message) account() {
	if r.watch == nil || r.fault != nil {
		return
	}
	if r.Spare(); !r.watch.HoldMessage(r.heldBytes(), r.body.Held() > 0) {
		r.spillBody()
		if r.fault == nil && !r.watch.HoldMessage(r.heldBytes(), false) && !r.watch.MakeRoom() {
			r.failWith(ErrNoMemory)
		}
	}
}

// heldBytes is how many bytes of memory the message takes.
func (r *Message) heldBytes() int64 { return int64(cap(r.head)) + r.kept + r.body.Held() }

// Spare implements smtpd.Receiver: the body of a slow message leaves the memory when
// that gets short.
func (r *Message) Spare() {
	if r.watch == nil || !r.watch.ShouldSpill(r.body.Held()) {
		return
	}

	// The body goes to a file; the header section has to stay.
	r.spillBody()
	r.watch.HoldMessage(r.heldBytes(), false)
}

// GiveWay implements smtpd.Receiver: it frees memory for a faster
// client. It returns false if that is not enough, and the session has to end.
func (r *Message) GiveWay() bool {
	if r.fault == nil {
		r.spillBody()
	}
	if r.fault == nil {
		r.watch.HoldMessage(r.heldBytes(), false)
	}
	return r.watch.Stay()
}

func (r *Message) spillBody() {
	if err := r.body.Spill(); err != nil {
		r.failWith(err)
	}
}

func (r *Message) failWith(err error) {
	if r.fault == nil {
		r.fault = err
		r.head, r.Header, r.kept = nil, nil, 0
		r.body.Discard()
		if r.watch != nil {
			r.watch.HoldMessage(0, false)
		}
	}
}

func (r *Message) writeBody(b []byte) {
	if _, err := r.body.Write(b); err != nil {
		r.failWith(err)
	}
}

var (
	crlf      = []byte("\r\n")
	emptyLine = []byte("\r\n\r\n")
)

// collect adds b to the header section and returns what of b belongs to the
// body, once that is known.
func (r *Message) collect(b []byte) []byte {
	// The empty line may begin up to three bytes back. A section that begins with
	// it is only the empty line.
	section := len(r.head) - r.trace
	from := max(r.trace, len(r.head)-3)
	part := b[:min(len(b), maxHeader+4-section)]
	if i := bytes.Index(part, emptyLine); i >= 0 {
		part = part[:i+len(emptyLine)] // head lives as long as the transaction: no body in it
	}

	// The end is sought only in the new bytes, and three before.
	r.head = append(r.head, part...)
	end := -1
	if bytes.HasPrefix(r.head[r.trace:], crlf) {
		end = r.trace + 2
	} else if i := bytes.Index(r.head[from:], emptyLine); i >= 0 {
		end = from + i + 4
	}
	switch {
	case end >= 0:
		used := end - r.trace - section
		r.head = r.head[:end]
		r.parseHeader()
		return b[used:]
	case len(r.head)-r.trace > maxHeader || r.endless():
		used := len(r.head) - r.trace - section
		r.parseHeader()
		return b[used:]
	}
	return nil
}

// endless reports whether head has gone past the header section: a message may
// lack the empty line, and its text must not be held as a header. Each line is
// looked at once.
func (r *Message) endless() bool {
	lines := r.head[r.trace:]
	if len(lines) < firstLook {
		return false
	}
	for {
		i := bytes.IndexByte(lines[r.seen:], '\n')
		if i < 0 {
			return false
		}
		line := lines[r.seen : r.seen+i+1]
		if !mail.InHeader(line) || r.seen == 0 && (line[0] == ' ' || line[0] == '\t') {
			return true
		}
		r.seen += len(line)
	}
}

// parseHeader reads the header section in head and passes all of head on. A message
// may lack the empty line: it is put in where the fields end, unless all of
// head are fields and more may follow.
func (r *Message) parseHeader() {
	fields := r.head
	if rest := r.head[r.trace:]; len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
		fields = r.head[:r.trace] // a first line that is no field must not become a fold of ours
	}

	// An endless section fails only if even its last line is part of a field.
	h, n, complete := mail.ParseHeader(fields)
	if !complete && len(r.head)-r.trace > maxHeader {
		if rest := r.head[n:]; bytes.IndexByte(rest, '\n') < 0 {
			r.failWith(errHeaderTooBig) // it ends in a field
			return
		}
	}
	section, rest, kept := r.head[:n:n], r.head[n:], cap(r.head)

	// The text behind the fields must not live as long as they do.
	if !complete {
		section = bytes.Clone(section)
		h, _, _ = mail.ParseHeader(section)
		kept = cap(section)
	}
	r.kept = int64(kept) + fieldCost*int64(bytes.Count(section, crlf))
	r.head = nil
	r.Header, r.HeaderSize = h, int64(n)

	// The missing empty line is put in, behind a last line without an end, too.
	r.writeBody(section)
	if !complete {
		if n > 0 && section[n-1] != '\n' { // the last line of all
			r.writeBody(crlf)
			r.HeaderSize += 2
			r.last = '\n'
		}
		r.writeBody(crlf)
		r.HeaderSize += 2
	}
	if len(rest) > 0 && r.fault == nil {
		r.writeBody(rest)
	}
}

// Finish is called after the end of data. It returns the reason why the message cannot
// be taken, or fills in its parts. maxReceived counts our own field too; 0: any number.
func (r *Message) Finish(maxReceived int, cleanAuthResults bool) error {
	if r.fault == nil && r.Header == nil {
		r.parseHeader()
	}
	if r.fault == nil && r.Size > 0 && r.last != '\n' { // BDAT: the last line has no end
		r.writeBody(crlf)
	}

	// A loop is recognized by the number of servers that it has passed.
	if r.fault == nil && maxReceived > 0 && r.Header.Count("Received") > maxReceived {
		r.failWith(errReceivedFields)
	}
	if r.fault != nil {
		return r.fault
	}

	content, err := r.body.Content()
	if err != nil {
		r.failWith(err)
		return err
	}
	r.Content = content
	if cleanAuthResults && r.Header.Has("Authentication-Results") {
		r.Header.Rename("Authentication-Results", "Original-Authentication-Results")
	}
	return nil
}

// Discard drops what nobody took over.
func (r *Message) Discard() { r.body.Discard() }

// overrun reports whether so much is being dropped that the connection should
// rather be closed.
func (r *Message) overrun() bool { return r.dots && r.limit > 0 && r.Size > r.limit+MaxExcess }
