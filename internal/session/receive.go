package session

import (
	"bytes"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

const (
	// maxHeader bounds the header section, which is held in memory.
	maxHeader = 1 << 20
	// maxExcess is how much beyond the size limit is read and dropped before the
	// connection is closed instead.
	maxExcess = 1 << 30
	// firstLook is how much of a header section without its empty line is collected
	// before it is looked for a line that is no field; see receiver.endless.
	firstLook = 4 << 10
	// fieldCost is about what a field of the parsed header takes beside its bytes.
	fieldCost = 32
)

var (
	errTooBig         = reply.New(552, "5.3.4", "Message too big!")
	errHeaderTooBig   = reply.New(552, "5.3.4", "Header section too big")
	errNoMemory       = reply.New(452, "4.3.1", "Too much mail is arriving, please try again later")
	errReceivedFields = reply.New(550, "5.4.6", "Too many received headers - possible mail loop")
)

// receiver takes the content of one message: it holds the header section and
// streams the body into a Body. Once it has failed it only counts.
type receiver struct {
	body  Body
	limit int64 // 0: none

	scanner scanner
	head    []byte // our Received field and the header section, until that is whole
	trace   int    // length of our Received field in head
	seen    int    // how much behind that field endless has looked at
	header  *mail.Header
	headLen int64 // of the header section in the body, with trace; set with header
	size    int64 // of content as received
	last    byte
	failed  error

	mem  *share // nil: nobody counts
	pace *pace
	kept int64 // bytes of memory that header takes
}

func newReceiver(body Body, received string, limit int64, dots bool) *receiver {
	return &receiver{
		body: body, limit: limit, head: []byte(received), trace: len(received), scanner: scanner{dots: dots},
	}
}

// Write implements io.Writer for the scanner. It never fails: what is wrong is
// told at the end, for until then the client does not listen.
func (r *receiver) Write(b []byte) (int, error) {
	n := len(b)
	if n == 0 {
		return 0, nil
	}
	r.size += int64(n)
	r.last = b[n-1]
	if r.limit > 0 && r.size > r.limit {
		r.fail(errTooBig)
	}
	if r.failed != nil {
		return n, nil
	}
	if r.header == nil {
		b = r.collect(b)
	}
	if len(b) > 0 && r.failed == nil {
		r.put(b)
	}
	r.account()
	return n, nil
}

// account sees that the message has the memory that it holds. A body that finds none
// goes to a file, as that of a slow message does when memory gets short. A header
// section has to be in memory: slower clients give way to it, or it fails.
func (r *receiver) account() {
	if r.mem == nil || r.failed != nil {
		return
	}
	if r.spare(); !r.mem.holdMessage(r.held(), r.body.Held() > 0) {
		r.spill()
		if r.failed == nil && !r.mem.holdMessage(r.held(), false) && !r.mem.push() {
			r.fail(errNoMemory)
		}
	}
}

// held is how many bytes of memory the message takes.
func (r *receiver) held() int64 { return int64(cap(r.head)) + r.kept + r.body.Held() }

// spare lets the body of a slow message leave the memory when that gets short.
func (r *receiver) spare() {
	if r.mem == nil || r.pace.total < paceWindow || r.body.Held() <= freeShare || !r.mem.budget.short() {
		return
	}
	r.spill()
	r.mem.holdMessage(r.held(), false)
}

// giveWay frees what it can of the memory for a faster client. It returns false if
// that is not enough, and the session has to end.
func (r *receiver) giveWay() bool {
	if r.failed == nil {
		r.spill()
	}
	if r.failed == nil {
		r.mem.holdMessage(r.held(), false)
	}
	return r.mem.stay()
}

func (r *receiver) spill() {
	if err := r.body.Spill(); err != nil {
		r.fail(err)
	}
}

func (r *receiver) fail(err error) {
	if r.failed == nil {
		r.failed = err
		r.head, r.header, r.kept = nil, nil, 0
		r.body.Discard()
		if r.mem != nil {
			r.mem.holdMessage(0, false)
		}
	}
}

func (r *receiver) put(b []byte) {
	if _, err := r.body.Write(b); err != nil {
		r.fail(err)
	}
}

var (
	crlf      = []byte("\r\n")
	emptyLine = []byte("\r\n\r\n")
)

// collect adds b to the header section and returns what of b belongs to the
// body, once that is known.
func (r *receiver) collect(b []byte) []byte {
	// The empty line may begin up to three bytes back. A section that begins with
	// it is only the empty line.
	section := len(r.head) - r.trace
	from := max(r.trace, len(r.head)-3)
	part := b[:min(len(b), maxHeader+4-section)]
	if i := bytes.Index(part, emptyLine); i >= 0 {
		part = part[:i+len(emptyLine)] // head lives as long as the transaction: no body in it
	}
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
		r.parse()
		return b[used:]
	case len(r.head)-r.trace > maxHeader || r.endless():
		used := len(r.head) - r.trace - section
		r.parse()
		return b[used:]
	}
	return nil
}

// endless reports whether head has gone past the header section: a message may
// lack the empty line, and its text must not be held as a header. Each line is
// looked at once.
func (r *receiver) endless() bool {
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

// parse reads the header section in head and passes all of head on. A message
// may lack the empty line: it is put in where the fields end, unless all of
// head are fields and more may follow.
func (r *receiver) parse() {
	fields := r.head
	if rest := r.head[r.trace:]; len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
		fields = r.head[:r.trace] // a first line that is no field must not become a fold of ours
	}
	h, n, complete := mail.ParseHeader(fields)
	if !complete && len(r.head)-r.trace > maxHeader {
		if rest := r.head[n:]; bytes.IndexByte(rest, '\n') < 0 {
			r.fail(errHeaderTooBig) // it ends in a field
			return
		}
	}
	section, rest, kept := r.head[:n:n], r.head[n:], cap(r.head)
	if !complete { // the text behind the fields must not live as long as they
		section = bytes.Clone(section)
		h, _, _ = mail.ParseHeader(section)
		kept = cap(section)
	}
	r.kept = int64(kept) + fieldCost*int64(bytes.Count(section, crlf))
	r.head = nil
	r.header, r.headLen = h, int64(n)
	r.put(section)
	if !complete {
		if n > 0 && section[n-1] != '\n' { // the last line of all
			r.put(crlf)
			r.headLen += 2
			r.last = '\n'
		}
		r.put(crlf)
		r.headLen += 2
	}
	if len(rest) > 0 && r.failed == nil {
		r.put(rest)
	}
}

// finish is called after the end of data. It fills in the transaction, or says
// what is wrong with the message. maxReceived counts our own field too.
func (r *receiver) finish(t *hook.Transaction, maxReceived int, cleanAuthResults bool) error {
	if r.failed == nil && r.header == nil {
		r.parse()
	}
	if r.failed == nil && r.size > 0 && r.last != '\n' { // BDAT: the last line has no end
		r.put(crlf)
	}
	t.Size = r.size
	if r.failed != nil {
		return r.failed
	}
	if maxReceived > 0 && r.header.Count("Received") > maxReceived {
		r.fail(errReceivedFields)
		return r.failed
	}
	c, err := r.body.Content()
	if err != nil {
		r.fail(err)
		return err
	}
	if cleanAuthResults && r.header.Has("Authentication-Results") {
		r.header.Rename("Authentication-Results", "Original-Authentication-Results")
	}
	t.Header, t.Content, t.HeaderSize = r.header, c, r.headLen
	return nil
}

// discard drops what nobody took over.
func (r *receiver) discard() { r.body.Discard() }

// overrun reports whether so much is being dropped that the connection should
// rather be closed.
func (r *receiver) overrun() bool { return r.limit > 0 && r.size > r.limit+maxExcess }
