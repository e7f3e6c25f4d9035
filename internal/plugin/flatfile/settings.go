package flatfile

import (
	"fmt"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
)

// Settings is auth_flat_file.ini.
type Settings struct {
	Methods         []string // upper case
	Users           map[string]string
	ConstrainSender bool
	// OnlyTLS: nobody is offered AUTH in clear, since the file names only CRAM-MD5,
	// which shows no password. What stands in for it does.
	OnlyTLS bool
}

const file = "auth_flat_file.ini"

// Tables declares the keys of auth_flat_file.ini.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{{
		File: file,
		Doc:  "Users of the plugin auth/flat_file. Keep this file readable only for the daemon.",
		Rows: ini.Within("core",
			ini.Row{
				Key: "methods", Kind: methods(&s.Methods, &s.OnlyTLS), Default: "PLAIN,LOGIN",
				Doc: "What is offered, with TLS or to private addresses (auth_insecure in connection.ini: to all): PLAIN, LOGIN.",
			},
			ini.Row{
				Key: "constrain_sender", Kind: ini.Bool(&s.ConstrainSender), Default: "true",
				Doc: "A user whose name has a domain may use senders in that domain only.",
			},
		),
		Free: []ini.Free{{
			Section: "users", Doc: "The users, as name=password.", Example: "user@example.com=secret", Secret: true,
			Print: func() []string {
				var lines []string
				for _, user := range ini.SortedKeys(s.Users) {
					lines = append(lines, user+"="+ini.Masked)
				}
				return lines
			},
		}},
		Begin:  func(*ini.Reader) { s.Users = map[string]string{} },
		Finish: s.finish,
	}}
}

// methods is the comma list of AUTH mechanisms. CRAM-MD5 is passed over, and
// the default stands when nothing else is named, with onlyTLS; finish warns of it.
func methods(p *[]string, onlyTLS *bool) ini.Kind {
	return ini.Joined("PLAIN, LOGIN, with commas between them", func(values []string) error {
		// An unknown name stops the start: nobody could log in with it.
		var all []string
		challenge := false
		for name := range strings.SplitSeq(strings.Join(values, ","), ",") {
			switch name = strings.ToUpper(strings.TrimFunc(name, grammar.IsBlank)); name {
			case "PLAIN", "LOGIN":
				all = append(all, name)
			case "CRAM-MD5":
				challenge = true
			case "":
			default:
				return &ini.ChoiceError{Value: name, Known: []string{"PLAIN", "LOGIN"}}
			}
		}
		if len(all) > 0 {
			*p = all
		}

		// CRAM-MD5 alone was chosen so that no password crosses the net in clear.
		*onlyTLS = challenge && len(all) == 0
		return nil
	}, func() []string {
		if *onlyTLS {
			return []string{"CRAM-MD5"}
		}
		return []string{strings.Join(*p, ",")}
	})
}

// finish reads the users.
func (s *Settings) finish(r *ini.Reader) {
	f := r.File(file)
	if k := f.Section("core").Key("methods"); k != nil && strings.Contains(strings.ToUpper(strings.Join(k.Values, ",")), "CRAM-MD5") {
		text := "CRAM-MD5 is not supported, what is offered is " + strings.Join(s.Methods, " and ")
		if s.OnlyTLS {
			text += ", and only with TLS: with CRAM-MD5 alone no password may be seen"
		}
		r.Add(ini.Problem{File: ini.Place(file), Line: k.Line, Section: "core", Key: k.Name, Warning: true, Text: text})
	}

	// A line that makes no user is reported, for somebody cannot log in.
	for _, k := range f.Section("users").Keys {
		p := ini.Problem{File: ini.Place(file), Line: k.Line, Section: "users", Key: k.Name}
		switch {
		case k.Bare: // perhaps the name and the password
			p.Key, p.Text = "", "a line that is no name=password: skipped"
		case k.Array:
			p.Text = "a user is name=password"
		case len(k.Values) == 0 || k.Values[0] == "":
			p.Text = "a user without a password cannot log in"
		default:
			s.Users[k.Name] = k.Values[0]
			if len(k.Lines) == 1 {
				continue
			}
			p.Line, p.Warning = k.Lines[len(k.Lines)-1], true
			p.Text = fmt.Sprintf("the user stands on line %d already, this password counts", k.Lines[0])
		}
		r.Add(p)
	}
}
