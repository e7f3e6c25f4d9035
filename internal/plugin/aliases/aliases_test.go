package aliases

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/reply"
	"tarishi/internal/route"
)

// read reads files, given in pairs of name and content.
func read(files ...string) (*Settings, ini.Problems) {
	folder := fstest.MapFS{}
	for i := 0; i < len(files); i += 2 {
		folder[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	s := &Settings{}
	r := ini.NewReader(folder, "")
	r.Load(s.Tables())
	return s, r.Problems()
}

const entries = `{
	"test1": {"action": "drop"},
	"test2": {"action": "DROP"},
	"test2-specific": {"action": "alias", "to": "test2"},
	"test3": {"action": "alias", "to": "test3-works"},
	"test4-testing+more": {"action": "alias", "to": "test4"},
	"test5": {"action": "alias", "to": "test5-works@success.example"},
	"test6@Example.com": {"action": "alias", "to": ["test6-works@success.example", "beside"]},
	"pre@example.com": {"action": "alias", "to": "prefix@success.example"},
	"@example.net": {"action": "drop"},
	"@example.org": {"action": "alias", "to": "all@success.example"}
}`

// ask asks about a recipient, and returns what it stands for.
func ask(t *testing.T, s *Settings, to string) (string, *hook.Transaction) {
	t.Helper()
	chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{})
	c, tx := plugintest.Session(t, "a@client.example")
	v := chain.Run(t.Context(), hook.OnRcpt, &hook.Event{Conn: c.View(), Tx: tx.View(), Recipient: mail.Recipient{Address: plugintest.Address(t, to)}})
	if v.Code != hook.Cont {
		t.Errorf("%s: %+v", to, v)
	}
	switch {
	case v.Alias == nil:
		return "itself", tx
	case len(v.Alias.To) == 0:
		return "nobody", tx
	}
	var names []string
	for _, a := range v.Alias.To {
		names = append(names, a.String())
	}
	return strings.Join(names, " "), tx
}

// The cases are those of haraka-plugin-aliases 1.1.0, and what it does not survive.
func TestExpand(t *testing.T) {
	s, problems := read(file, entries)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for to, want := range map[string]string{
		"test1@example.com":              "nobody",
		"test1-more@example.com":         "nobody",
		"test1+more@example.com":         "nobody",
		"Test1@example.com":              "itself", // the user counts by the letter
		"test2-testing@example.com":      "nobody",
		"test2-specific@example.com":     "test2@example.com", // the whole user wins over its beginning
		"test2-specific-x@example.com":   "nobody",
		"test3@example.com":              "test3-works@example.com",
		"test3@EXAMPLE.com":              "test3-works@EXAMPLE.com",
		"test4-testing+more@example.com": "test4@example.com",
		"test5@example.com":              "test5-works@success.example",
		"test5@example.net":              "test5-works@success.example", // the user wins over the domain
		"test6@example.com":              "test6-works@success.example beside@example.com",
		"test6@EXAMPLE.COM":              "test6-works@success.example beside@EXAMPLE.COM",
		"test6@example.biz":              "itself",
		"pre-fix@example.com":            "prefix@success.example",
		"pre-fix@example.biz":            "itself",
		"anybody@Example.Net":            "nobody",
		"anybody@example.org":            "all@success.example",
		"anybody@sub.example.org":        "itself",
		`"a@example.net"@example.com`:    "itself",
	} {
		got, tx := ask(t, s, to)
		if got != want {
			t.Errorf("%s stands for %s, want %s", to, got, want)
		}
		// The note is for mail that is sent on. What is dropped for one recipient must not be for
		// all, which is what the note discard means.
		if forward := want != "itself" && want != "nobody"; tx.Notes.Bool("forward") != forward || tx.Notes["discard"] != nil {
			t.Errorf("%s: notes %v", to, tx.Notes)
		}
	}
	s, _ = read(file, `{"*": {"action": "alias", "to": "test15-works@success.example"}, "mine": {"action": "alias", "to": "mine"}}`)
	for to, want := range map[string]string{"any@where.example": "test15-works@success.example", "mine@example.com": "mine@example.com"} {
		if got, _ := ask(t, s, to); got != want {
			t.Errorf("%s stands for %s, want %s", to, got, want)
		}
	}
}

func TestFiles(t *testing.T) {
	for _, test := range []struct {
		name  string
		files []string
		want  string // the first problem
		keys  int
	}{
		{"none", nil, "", 0},
		{"empty", []string{file, "{}\n"}, "", 0},
		{"older", []string{olderFile, `{"a": {"action": "drop"}}`}, "", 1},
		{"both", []string{file, `{"a": {"action": "drop"}, "b": {"action": "drop"}}`, olderFile, "{"}, "", 2},
		{"cut", []string{file, "{\n\"a\": {\"action\": \"drop\"},\n"}, "config/aliases.json:2: is not of the form", 1},
		{"no JSON", []string{olderFile, "a: b\n"}, "config/aliases:1: is not of the form", 0},
		{"a slip", []string{file, "{\n\"a\": {\"action\": \"drop\"},\n\"b\": {\"action\" \"drop\"}\n}"}, "config/aliases.json:3: is not of the form", 1},
		{"a comma too many", []string{file, "{\n\"a\": {\"action\": \"drop\"},\n}"}, "config/aliases.json:2: is not of the form", 1},
		{"a list", []string{file, "[]"}, `config/aliases.json:1: is not of the form {"user@example.com": {"action": "alias", "to": "other@example.com"}}`, 0},
		{"more", []string{file, "{}\n{}"}, "config/aliases.json:2: is not of the form", 0},
		{"no object", []string{file, "{\n\"a\": \"b@example.com\",\n\"c\": {\"action\": \"drop\"}}"}, `config/aliases.json:2: key a: is not of the form {"action": "alias", "to": "other@example.com"}`, 1},
		{"null", []string{file, "{\"a\": null}"}, "config/aliases.json:1: key a: is not of the form", 0},
		{"no action", []string{file, "{\n\n\"a\": {\"to\": \"b\"}}"}, "config/aliases.json:3: key a: has no action: want alias or drop", 0},
		{"unknown action", []string{file, `{"a": {"action": "bounce"}}`}, `config/aliases.json:1: key a: the action "bounce" is neither alias nor drop`, 0},
		{"no to", []string{file, `{"a": {"action": "alias"}}`}, `config/aliases.json:1: key a: has no "to": want an address, or several in square brackets`, 0},
		{"empty to", []string{file, `{"a": {"action": "alias", "to": []}}`}, `config/aliases.json:1: key a: has no "to"`, 0},
		{"bad to", []string{file, `{"a": {"action": "alias", "to": ["b", "c@"]}}`}, `config/aliases.json:1: key a: "to": "c@" is no address`, 0},
		{"null to", []string{file, `{"a": {"action": "alias", "to": ""}}`}, `config/aliases.json:1: key a: "to": "" is no address`, 0},
		{"too many", []string{file, `{"a": {"action": "alias", "to": [` + strings.Repeat(`"b",`, mostTargets) + `"b"]}}`}, "config/aliases.json:1: key a: stands for 101 addresses, more than 100", 0},
		{"bad key", []string{file, `{"a@": {"action": "drop"}}`}, "config/aliases.json:1: key a@: is no address, user, @domain or *", 0},
		{"no key", []string{file, `{"": {"action": "drop"}}`}, "config/aliases.json:1: is no address, user, @domain or *", 0},
		{"another field", []string{file, `{"a": {"action": "drop", "too": "b"}}`}, `config/aliases.json:1: warning: key a: "too" has no effect, did you mean to?`, 1},
		{"twice", []string{file, "{\"a@B.c\": {\"action\": \"drop\"},\n\"a@b.c\": {\"action\": \"drop\"}}"}, "config/aliases.json:2: warning: key a@b.c: stands there before, this one counts", 1},
	} {
		s, problems := read(test.files...)
		got := ""
		if len(problems) > 0 {
			got = problems[0].String()
		}
		if !strings.HasPrefix(got, test.want) || (got == "") != (test.want == "") || len(problems) > 1 {
			t.Errorf("%s: %v, want %s", test.name, problems, test.want)
		}
		if len(s.Entries) != test.keys {
			t.Errorf("%s: %v", test.name, s.Entries)
		}
	}
}

// queue is a plugin.Forwarder that notes what it takes.
type queue struct{ taken string }

func (q *queue) Forward(context.Context, hook.ConnectionView, hook.TransactionView, *route.Route) hook.Verdict {
	return hook.Proceed()
}

func (q *queue) Queue(_ context.Context, _ hook.ConnectionView, t hook.TransactionView) hook.Verdict {
	q.taken = fmt.Sprintf("%d recipients, %s %s", t.RecipientCount(), t.Notes().String(route.NoteWants), t.Notes().String(noteElsewhere))
	return hook.Verdict{Code: hook.OK, Reply: reply.New(250, "2.0.0", "Message Queued")}
}

// What is sent on to other domains leaves by way of the queue, with its own next hop beside
// the backend of the rest.
func TestQueue(t *testing.T) {
	backend := &route.Settings{Configured: true}
	backend.Main.Hosts = []mail.NextHop{{Host: "192.0.2.1"}}
	for _, test := range []struct {
		name       string
		routes     *route.Settings
		rcpts, fwd string
		wants      string
		taken      string // "": left to others
		elsewhere  string
	}{
		{"nothing sent on", backend, "a@here.example", "", "", "", ""},
		{"all", nil, "x@away.example y@away.example", "x@away.example y@away.example", "", "2 recipients, outbound ", ""},
		{"all, with a backend", backend, "x@away.example", "x@away.example", "", "1 recipients, outbound ", ""},
		{"all, with a backend's note", backend, "x@away.example", "x@away.example", "smtp_forward", "1 recipients, outbound ", ""},
		{"mixed", backend, "a@here.example x@away.example y@far.example z@away.example", "x@away.example y@far.example z@away.example", "", "4 recipients, smtp_forward away.example far.example", "away.example far.example"},
		{"mixed, one domain here too", backend, "a@here.example x@away.example b@away.example", "x@away.example", "", "3 recipients, smtp_forward ", ""},
		{"mixed, without a backend", nil, "a@here.example x@away.example", "x@away.example", "", "", "away.example"},
		{"mixed, for the queue", nil, "a@here.example x@away.example", "x@away.example", "outbound", "2 recipients, outbound ", ""},
		{"for another plugin", backend, "a@here.example x@away.example", "x@away.example", "lmtp", "", ""},
	} {
		q := &queue{}
		cfg := plugintest.Own(&Settings{})
		cfg.Routes = test.routes
		chain := plugintest.Chain(t, New, cfg, plugin.Services{Forwarder: q})
		c, tx := plugintest.Session(t, "a@client.example", strings.Fields(test.rcpts)...)
		for to := range strings.FieldsSeq(test.fwd) {
			tx.Forwarded = append(tx.Forwarded, plugintest.Address(t, to))
		}
		if test.wants != "" {
			tx.Notes.Set(route.NoteWants, test.wants)
		}
		v := chain.Run(t.Context(), hook.OnQueue, &hook.Event{Conn: c.View(), Tx: tx.View()})
		if q.taken != test.taken || (v.Code == hook.OK) != (test.taken != "") || tx.Notes.String(noteElsewhere) != test.elsewhere {
			t.Errorf("%s: %+v, taken %q, notes %v", test.name, v, q.taken, tx.Notes)
		}

		// The queue asks for each domain.
		for domain, want := range map[string]bool{"away.example": strings.Contains(test.elsewhere, "away"), "here.example": false} {
			d := &hook.Delivery{Envelope: tx.Envelope, Notes: mail.Notes{}}
			if v := chain.Run(t.Context(), hook.OnGetMX, &hook.Event{Host: domain, Delivery: d.View()}); (v.Code == hook.Stop) != want {
				t.Errorf("%s: next hops of %s: %+v", test.name, domain, v)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(entries)
	f.Add(`{"a":{"action":"alias","to":["b@c",""]}} x`)
	f.Add("{\"a\":\n[1,{}]")
	f.Fuzz(func(t *testing.T, text string) {
		s, problems := read(file, text)
		for key, e := range s.Entries {
			if key == "" || !e.Drop && (len(e.To) == 0 || len(e.To) > mostTargets) {
				t.Errorf("%q: %+v", key, e)
			}
		}
		for _, p := range problems {
			if p.Line < 1 || p.Line > 1+strings.Count(text, "\n")+strings.Count(text, "\r") {
				t.Errorf("%v", p)
			}
		}
	})
}
