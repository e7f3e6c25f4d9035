// Package smtpd is the server's end of the wire: it turns the bytes of one SMTP
// connection (RFC 5321) into typed commands and content, and replies into bytes.
// What commands mean, and in which order they may come, is the business of package
// session.
//
//	socket or TLS ──▶ Conn ── line ──▶ Command ── ParseMail, ParseRcpt, ParseChunk ──▶ session
//	                   │  └── content ──▶ scanner ──▶ Receiver                           │
//	                   └◀── replies, many in one write ◀── WriteReply, Greet, Answer ◀───┘
//	                                                      (go-smtp)
//
// A Conn owns the socket, TLS, the deadlines and both buffers. It gives out one
// command line at a time, after all earlier ones have been answered. Therefore the
// state of the conversation is known at every byte, however the client cuts its
// segments. Content is read here too: it is scanned once, by spans, for its end, its
// dots, and for a bare CR or LF.
//
// go-smtp, which only this package knows, answers EHLO, AUTH and the commands that
// are not implemented: see Answerers. Its own command loop would need a server, two
// buffers and a goroutine for each connection, and that is most of what an idle
// session costs.
//
// Invariants: all methods of a Conn but Wake and Cut belong to the goroutine that
// holds the conversation. Memory does not grow with the size of a message, and what
// all connections hold of mail that is arriving is bounded: see package budget. A connection
// that waits for a command holds no buffer and, where the socket can be polled, no
// more of a stack than the wait needs: see Conn.Park.
package smtpd
