package dialogue

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// nextHopAddr is where mail for others goes, if the site's DNS says so.
const nextHopAddr = "5.5.5.99:25"

// startNextHop starts a mail server that takes everything, and writes it into the folder
// spool as the server under test does: below the id in the first Received field.
func startNextHop(spool string) (net.Listener, error) {
	ln, err := net.Listen("tcp", nextHopAddr)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go serveNextHop(conn, spool)
		}
	}()
	return ln, nil
}

var receivedID = regexp.MustCompile(`\bid ([0-9A-F-]{36}\.\d+)`)

// serveNextHop has one session.
func serveNextHop(conn net.Conn, spool string) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	r := textproto.NewReader(bufio.NewReader(conn))
	say := func(line string) { fmt.Fprint(conn, line, "\r\n") }
	say("220 next.test ESMTP")
	for {
		line, err := r.ReadLine()
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(line[:min(4, len(line))]); verb {
		case "QUIT":
			say("221 bye")
			return
		case "DATA":
			say("354 go on")
			text, err := r.ReadDotBytes()
			if err != nil {
				return
			}
			if id := receivedID.FindSubmatch(text); id != nil {
				file := filepath.Join(spool, fmt.Sprintf("mail_%s.eml", id[1]))
				if err := os.WriteFile(file, bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), 0o644); err != nil {
					return
				}
			}
			say("250 taken")
		default:
			say("250 ok")
		}
	}
}
