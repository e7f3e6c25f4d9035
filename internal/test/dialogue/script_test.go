package dialogue

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// site is one file of testdata: sections below lines such as "-- dns --".
//
//   - plugins: those under test, in the order of config/plugins.
//   - dns: records and failures, see play_test.go.
//   - dialogues: see below.
//   - needs: further programs. Of these redis-server is started for Haraka.
//   - haraka:ready, tarishi:ready: lines of which parts must stand in the log before the
//     first dialogue.
//   - any other name is a file in config/ of both servers; behind "haraka:" or
//     "tarishi:" one that only that server gets; plugins there come before those of both.
//
// Lines that begin with # are comments in dns and dialogues. A dialogue is:
//
//	= name
//	connect 5.45.1.1       from that address; again for a further connection
//	hello 5.45.1.1 name    the same, the banner, EHLO and its reply; name may be absent
//	message a@b c@d e@f    MAIL, RCPT for all but the first, DATA, and their replies
//	< 220                  the reply to be read: a code
//	> EHLO mail.example    a line to be sent; several are sent together
//	< 550 HELO is dynamic  a code, and the whole text without its enhanced status code
//	haraka 554 text        in the place of <, where the servers differ: Haraka's reply,
//	here 250               ours,
//	because of a reason    and why
//	+ spf=pass             stands in the header section of the message that was taken last
//	haraka+ text, here+ text   the same of one server
//	- DKIM-Signature       does not stand there
//	tls                    STARTTLS, its reply, the handshake and EHLO
//
// The code closed stands for a connection that the server has closed, silent for a reply
// that does not come. In lines to be sent
// {CRLF} is a line end, and {date-20} the date of 20 days ago.
type site struct {
	Name      string
	Plugins   string
	Config    map[string]string // files of both by name
	Own       map[string]map[string]string
	Needs     []string
	DNS       []string
	Dialogues []dialogue
}

// The two servers.
const (
	haraka  = "haraka"
	tarishi = "tarishi"
)

// dialogue is one conversation.
type dialogue struct {
	Name  string
	Steps []step
}

// step is one thing that the client does, and in a file one line.
type step struct {
	Line    int
	Connect string           // address of the client
	Send    string           // bytes
	Want    map[string]reply // to be read, by server
	Because string           // why they differ
	Holds   map[string]string
	Lacks   string // stands in no header section
	TLS     bool
}

// reply is a reply of a server.
type reply struct {
	Code string // three digits, or closed
	Text string // without enhanced status codes; "": any, in a script
}

// The codes of replies that are none.
const (
	closed = "closed"
	silent = "silent"
)

func (r reply) String() string { return strings.TrimSpace(r.Code + " " + r.Text) }

// class is the first digit of a code; closed is a class of its own.
func (r reply) class() string { return r.Code[:1] }

// agrees reports whether a reply is the one that a script asks for.
func (r reply) agrees(got reply) bool {
	return r.Code == got.Code && (r.Text == "" || r.Text == got.Text)
}

// readSites reads testdata.
func readSites(t *testing.T) []*site {
	t.Helper()
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("testdata: %v", err)
	}
	var all []*site
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := parseSite(strings.TrimSuffix(filepath.Base(name), ".txt"), string(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, s)
	}
	return all
}

// parseSite reads a file.
func parseSite(name, text string) (*site, error) {
	s := &site{Name: name, Config: map[string]string{}, Own: map[string]map[string]string{haraka: {}, tarishi: {}}}
	section := ""
	for i, line := range strings.Split(text, "\n") {
		if head, ok := strings.CutPrefix(line, "-- "); ok {
			section = strings.TrimSuffix(head, " --")
			continue
		}
		owner, file, own := strings.Cut(section, ":")
		comment := line == "" || strings.HasPrefix(line, "#")
		switch {
		case section == "dns" && !comment:
			s.DNS = append(s.DNS, line)
		case section == "dialogues" && !comment:
			if err := s.read(i+1, line); err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
		case section == "dns" || section == "dialogues":
		case section == "needs":
			s.Needs = append(s.Needs, strings.Fields(line)...)
		case section == "plugins":
			s.Plugins += line + "\n"
		case own:
			s.Own[owner][file] += line + "\n"
		case section != "":
			s.Config[section] += line + "\n"
		}
	}
	return s, s.check()
}

// read reads one line of a dialogue.
func (s *site) read(no int, line string) error {
	word, rest, _ := strings.Cut(line, " ")
	if word == "=" {
		s.Dialogues = append(s.Dialogues, dialogue{Name: rest})
		return nil
	}
	if len(s.Dialogues) == 0 {
		return fmt.Errorf("%q belongs to no dialogue", line)
	}

	// Most lines are a step; some say more about the one above.
	steps := &s.Dialogues[len(s.Dialogues)-1].Steps
	add := func(st step) { st.Line = no; *steps = append(*steps, st) }
	last := func() *step {
		if len(*steps) == 0 {
			add(step{})
		}
		return &(*steps)[len(*steps)-1]
	}
	send := func(text string, code string) {
		add(step{Send: text + "\r\n"})
		add(step{Want: both(reply{Code: code})})
	}
	switch word {
	case "hello":
		from, name, _ := strings.Cut(rest, " ")
		add(step{Connect: from})
		add(step{Want: both(reply{Code: "220"})})
		send("EHLO "+cmp.Or(name, "mail.good.com"), "250")
	case "message":
		paths := strings.Fields(rest)
		send("MAIL FROM:<"+strings.Trim(paths[0], "<>")+">", "250")
		for _, to := range paths[1:] {
			send("RCPT TO:<"+to+">", "250")
		}
		send("DATA", "354")
	case "connect":
		add(step{Connect: rest})
	case ">":
		if last().Send == "" {
			add(step{})
		}
		last().Send += expand(rest) + "\r\n"
	case "<":
		add(step{Want: both(parseReply(rest))})
	case haraka:
		add(step{Want: map[string]reply{haraka: parseReply(rest)}})
	case "here":
		if last().Want == nil {
			return fmt.Errorf("%q stands behind no reply of Haraka's", line)
		}
		last().Want[tarishi] = parseReply(rest)
	case "tls":
		send("STARTTLS", "220")
		add(step{TLS: true})
		send("EHLO mail.good.com", "250")
	case "-":
		add(step{Lacks: rest})
	case "+":
		add(step{Holds: map[string]string{haraka: rest, tarishi: rest}})
	case "haraka+":
		add(step{Holds: map[string]string{haraka: rest}})
	case "here+":
		if last().Holds == nil {
			add(step{Holds: map[string]string{}})
		}
		last().Holds[tarishi] = rest
	case "because":
		last().Because = rest
	default:
		return fmt.Errorf("%q is not understood", line)
	}
	return nil
}

// check looks for differences without a reason, and for dialogues that say nothing.
func (s *site) check() error {
	for _, d := range s.Dialogues {
		replies := 0
		for _, st := range d.Steps {
			replies += len(st.Want)
			differ := st.Want != nil && st.Want[haraka] != st.Want[tarishi] || st.Holds != nil && st.Holds[haraka] != st.Holds[tarishi]
			if differ != (st.Because != "") {
				return fmt.Errorf("line %d: a difference needs a reason, and a reason a difference", st.Line)
			}
			if st.Want != nil && (len(st.Want) != 2 || st.Want[haraka].Code == "" || st.Want[tarishi].Code == "") {
				return fmt.Errorf("line %d: a reply of both servers is needed", st.Line)
			}
		}
		if replies == 0 {
			return fmt.Errorf("%s: no reply is expected", d.Name)
		}
	}
	if len(s.Dialogues) == 0 {
		return fmt.Errorf("no dialogues")
	}
	return nil
}

// both is a reply that both servers give.
func both(r reply) map[string]reply { return map[string]reply{haraka: r, tarishi: r} }

func parseReply(text string) reply {
	code, rest, _ := strings.Cut(text, " ")
	return reply{code, rest}
}

// expand puts in what cannot be written down.
func expand(line string) string {
	line = strings.ReplaceAll(line, "{CRLF}", "\r\n")
	before, rest, found := strings.Cut(line, "{date")
	number, after, closes := strings.Cut(rest, "}")
	days, err := strconv.Atoi(number)
	if !found || !closes || err != nil {
		return line
	}
	return before + daysFromNow(days) + after
}
