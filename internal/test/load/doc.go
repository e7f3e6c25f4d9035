// Package load measures a mail server: Load sends numbered messages over
// many sessions, Sink receives what the server makes of them, and Tally
// compares the two lists recipient by recipient, so that a loss or a duplicate
// is counted exactly and not estimated.
//
// Every recipient of every message has an ID, which is the local part of its
// address. The message's header carries the same number, so that a content
// that reached the wrong envelope is noticed as well. A message number is sent
// once and never again: a message with a positive reply must arrive, one that was
// refused or got no reply may.
//
// The package has its own client and server code, small and of constant cost,
// and shares none with the servers that it measures.
package load

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ID names one recipient of one message of one run.
type ID struct {
	Run       uint16
	Message   uint32
	Recipient uint16
}

// String returns the local part of the recipient's address: "l7.123.0".
func (id ID) String() string {
	return string(id.append(nil))
}

func (id ID) append(b []byte) []byte {
	b = append(b, 'l')
	b = strconv.AppendUint(b, uint64(id.Run), 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(id.Message), 10)
	b = append(b, '.')
	return strconv.AppendUint(b, uint64(id.Recipient), 10)
}

// ParseID reads the local part of an address.
func ParseID(local string) (ID, bool) {
	rest, ok := strings.CutPrefix(local, "l")
	if !ok {
		return ID{}, false
	}
	run, rest, _ := strings.Cut(rest, ".")
	message, recipient, ok := strings.Cut(rest, ".")
	if !ok {
		return ID{}, false
	}
	r, err1 := strconv.ParseUint(run, 10, 16)
	m, err2 := strconv.ParseUint(message, 10, 32)
	n, err3 := strconv.ParseUint(recipient, 10, 16)
	return ID{Run: uint16(r), Message: uint32(m), Recipient: uint16(n)}, err1 == nil && err2 == nil && err3 == nil
}

// idField is the header field with a message's run and number. The digits have
// a fixed width, so that a client can write them over the last message's.
const idField = "X-Load-Id: "

func headerID(run uint16, message uint32) string { return fmt.Sprintf("%05d.%010d", run, message) }

// content makes a message of exactly size bytes, or a little more when size is
// too small for the header, and tells where its number stands. Its date is today's, as
// servers that check mail find old ones odd.
func content(size int, run uint16, from string) (message []byte, number int) {
	var b strings.Builder
	fmt.Fprintf(&b, "From: Load <%s>\r\nTo: Sink <sink@sink.test>\r\nSubject: a message to measure with\r\n"+
		"Date: %s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n",
		from, time.Now().UTC().Truncate(24*time.Hour).Format(time.RFC1123Z))
	b.WriteString(idField)
	number = b.Len()
	b.WriteString(headerID(run, 0))
	fmt.Fprintf(&b, "\r\nMessage-Id: <%s@client.test>\r\n\r\n", headerID(run, 0))
	for i := 0; b.Len() < size; i++ {
		line := prose[i%len(prose)]
		switch left := size - b.Len(); {
		case left >= len(line)+2+4: // enough for another line behind it
			b.WriteString(line)
		case left > 2:
			b.WriteString(strings.Repeat("=", left-2))
		}
		b.WriteString("\r\n")
	}
	return []byte(b.String()), number
}

// prose is what bodies consist of: lines of about 70 characters, some that
// begin with a dot, as a body may.
var prose = [...]string{
	"The courier left at dawn with forty letters in a bag of waxed canvas,",
	"for the road along the coast is long and the tide waits for nobody.",
	"At each village he asked three things: who is here, who has moved away,",
	"and who will take what belongs to a neighbour until the rain is over.",
	"... nobody answered at the last house, so he wrote the hour on the door,",
	"put the letter back where it had been, and came again the next morning.",
	"It is said that he lost one in thirty years, and that he went to tell",
	"the sender himself, on foot, because a bad word should have a face.",
}
