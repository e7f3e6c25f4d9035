package mail

import (
	"bytes"
	"errors"
	"io"
)

// mailboxField is what a mailbox line becomes: the field that Postfix makes of it.
const mailboxField = "X-Mailbox-Line: "

// maxTrace is how much of a message is searched for mailbox lines, in bytes: they
// stand on top of it or below trace fields.
const maxTrace = 64 << 10

// isMailboxLine reports whether a line is the separator of a mailbox file
// (RFC 4155), which is no part of a message but sent as one by programs that cut
// such a file into messages. ">From " is the same after another program quoted it.
func isMailboxLine(line []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From ")) && !isField(line)
}

// authored are the fields that an author's program writes. What stands above them
// was put there on the way.
var authored = []string{"From", "To", "Subject", "Date", "Message-Id"}

// mailboxRun returns the length of the mailbox lines, with their folds, at the
// start of b if they are part of a header section with above as its latest fields,
// else 0. They are if none of above is an author's and either a field, the empty
// line or the end of b follows: what follows text is text.
func mailboxRun(above [][]byte, b []byte) int {
	for _, f := range above {
		for _, name := range authored {
			if fieldIs(f, name) {
				return 0
			}
		}
	}

	// Several separators can stand in a row, each with folds. Taking only the first would leave the
	// next one to end the header.
	rest := b
	for len(rest) > 0 {
		line, after := cutLine(rest)
		if !isMailboxLine(line) && (len(rest) == len(b) || isEmpty(line) || !isFold(line)) {
			break
		}
		rest = after
	}

	// If text follows, the lines are text as well: the section has ended before them.
	if len(rest) > 0 {
		next, after := cutLine(rest)
		cut := len(after) == 0 && next[len(next)-1] != '\n' // there may be more than b holds
		if !isField(next) && !isEmpty(next) && !cut {
			return 0
		}
	}
	return len(b) - len(rest)
}

// MoveMailboxLines returns c with the mailbox lines of its header section turned
// into fields, as ParseHeader does it, or c itself if it has none. An error is
// temporary.
func MoveMailboxLines(c Content) (Content, error) {
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()

	// Only the top of a message can hold such lines, and reading more would cost every message.
	b := make([]byte, min(c.Size(), maxTrace))
	n, err := io.ReadFull(r, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	h, _, _, mailbox := parseHeader(b[:n])
	if len(mailbox) == 0 {
		return c, nil
	}

	// Only what stands above the end of the last one is replaced: the section may
	// be longer than b.
	last := mailbox[len(mailbox)-1]
	if f := h.fields[last]; f[len(f)-1] != '\n' {
		return c, nil
	}
	var head []byte
	var skip int64
	for i, f := range h.fields[:last+1] {
		if mailbox[0] == i {
			head = append(head, mailboxField...)
			if mailbox = mailbox[1:]; len(mailbox) == 0 {
				mailbox = []int{-1}
			}
		}
		head = append(head, f...)
		skip += int64(len(f))
	}
	return WithHead(head, c, skip), nil
}
