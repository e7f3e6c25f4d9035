package dsn

import (
	"bytes"
	"fmt"
	"html"
	"mime"
	netmail "net/mail"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"tarishi/internal/dsn/entity"
	"tarishi/internal/dsn/sevenbit"
	"tarishi/internal/mail"
)

// Caps of values, in bytes.
const (
	maxValue   = 500
	maxField   = 2000 // of a template's header
	maxAddress = 2100 // more than any accepted address, also when it is quoted
	maxListed  = 100  // recipients listed in the text
	packWidth  = 66   // of {recipients}
)

// cleanLine makes s fit to stand in one line of anything: printable, without blanks
// around it, and capped.
func cleanLine(s string, limit int) string {
	s = strings.TrimSpace(printable(s[:min(len(s), 8*limit)])) // the rest would be cut off anyway
	if len(s) <= limit {
		return s
	}

	// A cut inside a rune would leave invalid UTF-8 behind.
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return strings.TrimSpace(s[:limit]) + "..."
}

// printable returns s as valid UTF-8, with blanks for line breaks and what else
// cannot be seen. Joiners and variation selectors are part of some scripts.
func printable(s string) string {
	return hideRunes(s, func(r rune) bool { return r != '\u200c' && r != '\u200d' && !unicode.Is(unicode.Variation_Selector, r) })
}

// hideRunes is printable for those runes of mail.IsHidden that hides reports.
func hideRunes(s string, hides func(rune) bool) string {
	return strings.Map(func(r rune) rune {
		if mail.IsHidden(r) && hides(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// cleanAddress is printable for addresses, where nothing stays hidden: before they are
// quoted, since a blank needs quotes that the replaced character did not.
func cleanAddress(a mail.Address) mail.Address {
	return mail.Address{Local: hideRunes(a.Local, anyRune), Domain: hideRunes(a.Domain, anyRune)}
}

func anyRune(rune) bool { return true }

// field is one header field of the report, its value unfolded.
type field struct{ name, value string }

// fillTemplate fills the template in: header fields as it has them, and the text.
func (c *composer) fillTemplate(t Templates) ([]field, []byte) {
	c.subject = cleanLine(decodeWords(c.original.Get("Subject")), maxValue)
	builtIn := c.builtIn()

	// A template of the administrator speaks of failures. Everything else, and an empty file, has
	// the built-in text.
	lines := builtIn
	if c.lead == Failed && !isBlank(t.Message) {
		lines = splitLines(t.Message)
	}
	c.values = c.variables(c.lead)
	header, text := separate(lines)
	for i, f := range header {
		header[i].value = c.fillHeader(f)
	}

	// A template may consist of header fields alone.
	if isBlank(text) {
		_, text = separate(builtIn)
	}
	all := append(fillText(text, c.values, unescaped), c.otherActionsText()...)
	return header, append(all, fillText(c.omissionText(), nil, unescaped)...)
}

// otherActionsText is the text about recipients with another action than the leading one.
func (c *composer) otherActionsText() []byte {
	var all []byte
	for _, action := range actions {
		if action != c.lead && c.hasAction(action) {
			all = append(all, fillText([]string{"", wordings[action].heading, "", "    {extended_reason}"}, c.variables(action), unescaped)...)
		}
	}
	return all
}

func (c *composer) hasSeveralActions() bool {
	return slices.ContainsFunc(c.Recipients, func(r Recipient) bool { return r.action() != c.lead })
}

// splitLines returns lines without line ends, however they came.
func splitLines(lines []string) []string {
	s := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.Join(lines, "\n"))
	return strings.Split(s, "\n")
}

func isBlank(lines []string) bool { return strings.TrimSpace(strings.Join(lines, "")) == "" }

// separate cuts lines into header fields, unfolded, and the rest.
func separate(lines []string) ([]field, []string) {
	var fields []field
	for i, line := range lines {
		if strings.TrimSpace(line) == "" {
			return fields, lines[i+1:]
		}
		if line[0] == ' ' || line[0] == '\t' {
			if len(fields) == 0 {
				return nil, lines
			}
			fields[len(fields)-1].value += " " + strings.TrimSpace(line)
			continue
		}

		// The first line that is neither field nor fold begins the text: a template needs no empty
		// line.
		name, value, found := strings.Cut(line, ":")
		name = strings.TrimRight(name, " \t")
		if !found || !isFieldName(name) {
			return fields, lines[i:]
		}
		fields = append(fields, field{name, strings.TrimSpace(value)})
	}
	return fields, nil
}

func isFieldName(name string) bool {
	for i := 0; i < len(name); i++ {
		if name[i] <= ' ' || name[i] >= 0x7f {
			return false
		}
	}
	return name != "" && len(name) <= 76
}

// variables returns what the names in a template stand for in a text about the
// recipients with that action.
func (c *composer) variables(action string) map[string]value {
	v := map[string]value{
		"date":  {c.date},
		"me":    {c.me},
		"msgid": {c.msgid},
		"from":  {c.sender},
	}
	if c.PID > 0 {
		v["pid"] = value{strconv.Itoa(c.PID)}
	}
	if c.subject != "" {
		v["subject"] = value{c.subject}
	}

	// The text lists a bounded number of recipients; the machine-readable part always has all of
	// them.
	var recipients, reasons value
	n := 0
	for i := range c.Recipients {
		r := &c.Recipients[i]
		if r.action() != action {
			continue
		}
		if n++; n > maxListed {
			continue
		}
		addr := cleanLine(cleanAddress(r.Address).Path(), maxValue)
		if n == 1 {
			v["to"] = value{cleanLine(cleanAddress(r.Address).Path(), maxAddress)}
		}
		reason := r.reason()
		recipients, reasons = append(recipients, addr), append(reasons, strings.TrimSuffix(addr+": "+reason, ": "))
		if reason != "" && v["reason"] == nil {
			v["reason"] = value{reason}
		}
	}

	// The reader must see that the list is not complete.
	if n > maxListed {
		more := fmt.Sprintf("and %d more", n-maxListed)
		recipients, reasons = append(recipients, more), append(reasons, more)
	}
	v["recipients"], v["extended_reason"] = packLines(recipients), reasons
	return v
}

// packLines joins elements by commas, in lines of some width.
func packLines(all []string) value {
	var lines value
	for i, s := range all {
		if i < len(all)-1 {
			s += ","
		}
		if last := len(lines) - 1; last >= 0 && len(lines[last])+1+len(s) <= packWidth {
			lines[last] += " " + s
		} else {
			lines = append(lines, s)
		}
	}
	return lines
}

// reason returns why, or "" if nothing is known.
func (r *Recipient) reason() string {
	s := ""
	if r.Reply != nil {
		s = cleanLine(r.Reply.String(), maxValue)
	}
	if r.Expired {
		if s == "" {
			return "could not be delivered in time"
		}
		return "could not be delivered in time, the last reply was: " + s
	}
	return s
}

// decodeWords decodes RFC 2047 words in the charsets that the standard library
// knows, and leaves others.
func decodeWords(s string) string {
	var d mime.WordDecoder
	if decoded, err := d.DecodeHeader(s); err == nil {
		return decoded
	}
	return s
}

// fillVariables replaces every {name} in s with the result of of.
func fillVariables(s string, of func(name string) string) string {
	var b strings.Builder
	for {
		open := strings.IndexByte(s, '{')
		if open < 0 {
			break
		}
		b.WriteString(s[:open])
		s = s[open:]

		// Braces that surround no name, as in a style sheet, stay as they are.
		end := strings.IndexByte(s, '}')
		if end < 2 || strings.Trim(s[1:end], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			b.WriteByte('{')
			s = s[1:]
			continue
		}
		b.WriteString(of(s[1:end]))
		s = s[end+1:]
	}
	b.WriteString(s)
	return b.String()
}

// fillHeader returns the value of a template's field.
func (c *composer) fillHeader(f field) string {
	return cleanLine(fillVariables(f.value, func(name string) string {
		if name == "from" || name == "to" {
			switch strings.ToLower(f.name) {
			case "to":
				return c.sender
			case "from":
				return c.daemonAddress()
			}
		}
		between := "; "
		if name == "recipients" {
			between = " " // after its commas
		}
		s := strings.Join(c.values[name], between)
		if s == "" {
			return "?"
		}
		return strings.ReplaceAll(s, "=?", "= ?") // no encoded words but the template's own
	}), maxField)
}

// fillText returns lines, ended by CRLF, with each value passed through escape.
func fillText(lines []string, values map[string]value, escape func(string) string) []byte {
	var b strings.Builder
	for _, line := range lines {
		line = strings.ToValidUTF8(line, "?")
		lineEnd := "\r\n" + line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		b.WriteString(fillVariables(line, func(name string) string {
			v := values[name]
			if len(v) == 0 {
				return "?"
			}
			return escape(strings.Join(v, lineEnd))
		}))
		b.WriteString("\r\n")
	}
	return []byte(b.String())
}

func unescaped(s string) string { return s }

func (c *composer) daemonAddress() string { return "Mail Delivery System <MAILER-DAEMON@" + c.me + ">" }

// unique lists the fields that a message may have once (RFC 5322 section
// 3.6), and those that a report never has more of.
var unique = map[string]bool{
	"from": true, "to": true, "cc": true, "sender": true, "reply-to": true, "subject": true, "date": true,
	"message-id": true, "in-reply-to": true, "references": true, "auto-submitted": true,
}

// completeHeader turns the template's fields into a valid header: doubled ones and
// those that are not a template's business are dropped, invalid and missing ones are
// set.
func (c *composer) completeHeader(fields []field) []field {
	// What the template says counts, as long as the result is a valid message. The fields that make
	// it a report are ours alone.
	var all []field
	seen := map[string]bool{}
	for _, f := range fields {
		name := strings.ToLower(f.name)
		if name == "mime-version" || name == "bcc" || name == "return-path" || name == "tls-required" || strings.HasPrefix(name, "content-") || seen[name] {
			continue
		}
		value, ok := c.checkField(name, f.value)
		if !ok {
			continue
		}
		seen[name] = unique[name]
		all = append(all, field{f.name, value})
	}

	// Whatever is missing, or was refused above, is filled in: the header is complete with any
	// template.
	for _, f := range []field{
		{"From", c.daemonAddress()},
		{"To", c.sender},
		{"Subject", wordings[c.lead].subject},
		{"Date", c.date},
		{"Message-Id", c.msgid},
		{"Auto-Submitted", "auto-replied"},
	} {
		if !seen[strings.ToLower(f.name)] {
			all = append(all, f)
		}
	}
	if c.Original.TLSOptional { // a report is protected as its original is
		all = append(all, field{"TLS-Required", "No"})
	}
	if id := c.original.Get("Message-Id"); isMessageID(id) { // mail programs show it with the original
		for _, name := range []string{"In-Reply-To", "References"} {
			if !seen[strings.ToLower(name)] {
				all = append(all, field{name, id})
			}
		}
	}
	return all
}

// checkField checks a field's value, and encodes it for a header where it must.
func (c *composer) checkField(name, value string) (string, bool) {
	if value == "" {
		return "", false
	}
	switch name {
	case "from", "sender", "to", "cc", "reply-to":
		return c.checkAddresses(value)
	case "date":
		_, err := netmail.ParseDate(value)
		return value, err == nil
	case "message-id":
		return value, isMessageID(value)
	case "in-reply-to", "references":
		for id := range strings.FieldsSeq(value) {
			if !isMessageID(id) {
				return "", false
			}
		}
		return value, true
	case "auto-submitted":
		return value, mail.IsASCII(value) && strings.HasPrefix(strings.ToLower(value), "auto-")
	}
	return mime.QEncoding.Encode("utf-8", value), true
}

// checkAddresses checks a list of addresses, and encodes display names.
func (c *composer) checkAddresses(value string) (string, bool) {
	if value == c.sender { // also where the library knows no such address literal
		return value, true
	}
	list, err := netmail.ParseAddressList(value)
	if err != nil {
		return "", false
	}
	if mail.IsASCII(value) {
		return value, true
	}

	// Display names beyond ASCII become encoded words. An address beyond ASCII has no such form,
	// and needs SMTPUTF8.
	all := make([]string, len(list))
	for i, a := range list {
		all[i] = a.String()
	}
	value = strings.Join(all, ", ")
	return value, c.utf8 || mail.IsASCII(value)
}

func isMessageID(s string) bool {
	if len(s) < 5 || len(s) > 250 || s[0] != '<' || s[len(s)-1] != '>' {
		return false
	}
	id := s[1 : len(s)-1]
	for i := 0; i < len(id); i++ {
		if id[i] <= ' ' || id[i] >= 0x7f || id[i] == '<' || id[i] == '>' {
			return false
		}
	}
	return strings.Contains(id, "@")
}

// explanationPart makes the first part of the report: plain text, with an HTML
// alternative and its image if there are templates for them.
func (c *composer) explanationPart(t Templates, text []byte) entity.Part {
	plain := entity.Text("text/plain; charset=utf-8", text)
	if c.lead != Failed || isBlank(t.HTML) || c.hasSeveralActions() {
		return plain
	}

	// Programs that show HTML find it last among the alternatives (RFC 2046 section 5.1.4).
	page := entity.Text("text/html; charset=utf-8", c.htmlPage(t.HTML))
	p := entity.Multipart("alternative", "", "", []entity.Part{plain, page})
	if image, ok := imagePart(t.Image); ok {
		return entity.Multipart("related", `type="multipart/alternative"`, "", []entity.Part{p, image})
	}
	return p
}

// htmlPage fills the HTML template in. What the text says of the original is put at
// the end of its body.
func (c *composer) htmlPage(lines []string) []byte {
	page := fillText(splitLines(lines), c.values, html.EscapeString)
	if c.headerOnly == "" {
		return page
	}
	note := "<p>" + html.EscapeString(strings.Join(c.omissionText()[1:], " ")) + "</p>\r\n"
	at := bytes.LastIndex(bytes.ToLower(page), []byte("</body>"))
	if at < 0 {
		return append(page, note...)
	}
	return slices.Concat(page[:at], []byte(note), page[at:])
}

// imagePart takes a MIME part as the template has it.
func imagePart(lines []string) (entity.Part, bool) {
	if isBlank(lines) {
		return entity.Part{}, false
	}
	fields, rest := separate(splitLines(lines))
	body := []byte(strings.Join(rest, "\r\n") + "\r\n")

	// The image is a MIME part from a file. Fields other than its own would end up in the middle of
	// our message.
	var p entity.Part
	typed := false
	for _, f := range fields {
		if strings.HasPrefix(strings.ToLower(f.name), "content-") {
			p.Head += entity.Fold(f.name, cleanLine(f.value, maxField))
			typed = typed || strings.EqualFold(f.name, "Content-Type")
		}
	}
	p.Body = [][]byte{body}
	return p, typed && mail.IsASCII(p.Head) && sevenbit.IsPlain(body)
}
