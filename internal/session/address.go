package session

import (
	"strings"

	"tarishi/internal/mail"
)

// mailbox reads the address that go-smtp took from a MAIL or RCPT line. flat is
// go-smtp's result: the local part without its quotes, an @ and the domain. In
// it `"a@b"@c` and `a@b@c` look alike, so the border is sought in path, the
// argument as the client wrote it, by go-smtp's own grammar.
func mailbox(path, flat string) (mail.Address, error) {
	if flat == "" {
		return mail.Address{}, nil
	}
	rest := strings.TrimSpace(path)
	rest = strings.TrimPrefix(rest, "<")
	if strings.HasPrefix(rest, "@") { // a source route
		_, rest, _ = strings.Cut(rest, ":")
	}
	if strings.HasPrefix(rest, `"`) {
		i := 1
		for i < len(rest) && rest[i] != '"' {
			if rest[i] == '\\' {
				i++
			}
			i++
		}
		rest = rest[min(i+1, len(rest)):]
	}
	_, domain, _ := strings.Cut(rest, "@")
	if i := strings.IndexAny(domain, " \t>"); i >= 0 {
		domain = domain[:i]
	}
	local, ok := strings.CutSuffix(flat, "@"+domain)
	if !ok {
		return mail.Address{}, mail.ErrAddress
	}
	a := mail.Address{Local: local, Domain: domain}
	if checked, err := mail.ParseAddress(a.Path()); err != nil {
		return mail.Address{}, err
	} else if checked != a {
		return mail.Address{}, mail.ErrAddress
	}
	return a, nil
}
