package smtptest

import (
	"bufio"
	"bytes"
	"io"
	"slices"
	"strconv"
	"strings"
)

// wanted reports whether a recipient of the transaction was accepted.
func (k *conn) wanted() bool {
	return k.tx != nil && slices.ContainsFunc(k.tx.Rcpts, func(r Recipient) bool { return positive(r.Reply) })
}

func (k *conn) data(line string) error {
	byDefault := "354 go ahead"
	if !k.wanted() {
		byDefault = "503 5.5.1 need RCPT"
	}
	sent, err := k.answer(Data, line, "", byDefault)
	if err != nil || !strings.HasPrefix(sent, "3") {
		return err
	}
	if _, err := k.answer(Body, "", "", ""); err != nil {
		return err
	}
	content, err := k.content()
	if err != nil {
		return err
	}
	tx := k.tx
	if tx == nil {
		tx = &Transaction{Conn: k.index}
	}
	tx.Content = content
	return k.finish(tx)
}

// finish ends a transaction with a whole message.
func (k *conn) finish(tx *Transaction) error {
	k.tx, k.xforward = nil, nil
	// The transaction is on record before anybody hears of it.
	var actions []Action
	if !k.server.lmtp {
		a, sent := k.ask(Dot, ".", "", "250 2.0.0 queued")
		for i := range tx.Rcpts {
			tx.Rcpts[i].Final = sent
		}
		actions = append(actions, a)
	} else {
		for i := range tx.Rcpts {
			r := &tx.Rcpts[i]
			if !positive(r.Reply) || len(actions) > 0 && actions[len(actions)-1].then != goOn {
				continue
			}
			a, sent := k.ask(Dot, ".", r.Address, "250 2.0.0 delivered")
			r.Final = sent
			actions = append(actions, a)
		}
	}

	// Every recipient has its reply by now, and the test may look.
	k.server.mu.Lock()
	k.server.transactions = append(k.server.transactions, *tx)
	k.server.notify()
	k.server.mu.Unlock()
	for _, a := range actions {
		if err := k.do(a); err != nil {
			return err
		}
	}
	return nil
}

// content reads a message up to the final dot. Only CRLF ends a line.
func (k *conn) content() ([]byte, error) {
	var b, line []byte
	for {
		part, err := k.br.ReadSlice('\n')
		line = append(line, part...)
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil {
			return nil, err
		}

		// A lone CR or LF would be read as a line end by some servers: the client must never send
		// one.
		if !bytes.HasSuffix(line, []byte("\r\n")) || bytes.IndexByte(line, '\r') != len(line)-2 {
			k.violation("bare CR or LF in content")
		}
		if string(line) == ".\r\n" {
			return b, nil
		}
		b = append(b, bytes.TrimPrefix(line, []byte("."))...)
		line = line[:0]
	}
}

// bdat reads one chunk (RFC 3030).
func (k *conn) bdat(line, args string) error {
	count, mark, marked := strings.Cut(args, " ")
	size, err := strconv.Atoi(count)
	last := strings.EqualFold(mark, "LAST")
	switch {
	case err != nil || size < 0 || marked && !last:
		k.violation("syntax: %q", line)
		_, err := k.answer(Other, line, "", "501 5.5.4 syntax")
		return err
	case !k.offers("CHUNKING"):
		k.violation("CHUNKING is not offered: %q", line)
	}

	// The chunk is read before the command is judged: it follows in any case, and would be taken
	// for commands.
	chunk := make([]byte, size)
	if _, err := io.ReadFull(k.br, chunk); err != nil {
		return err
	}
	switch {
	case k.failed: // an earlier chunk: the client may have sent this one before it knew
		_, err := k.answer(Chunk, line, "", "503 5.5.1 the transaction has failed")
		return err
	case !k.wanted():
		_, err := k.answer(Chunk, line, "", "503 5.5.1 need RCPT")
		return err
	}
	k.tx.Content = append(k.tx.Content, chunk...)
	k.tx.Chunks++
	if !last {
		sent, err := k.answer(Chunk, line, "", "250 2.0.0 chunk taken")
		k.failed = !positive(sent)
		return err
	}

	// A chunk may be cut between CR and LF, so line ends are only checked in the whole.
	content := k.tx.Content
	if n := bytes.Count(content, []byte("\r\n")); bytes.Count(content, []byte("\r")) != n || bytes.Count(content, []byte("\n")) != n {
		k.violation("bare CR or LF in content")
	}
	return k.finish(k.tx)
}
