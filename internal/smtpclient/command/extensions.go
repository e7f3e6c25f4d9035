package command

import (
	"strconv"
	"strings"
)

// Extensions is what EHLO or LHLO offered.
type Extensions struct {
	Pipelining, EightBitMIME, SMTPUTF8, DSN, StartTLS, Chunking, EnhancedStatusCodes, RequireTLS bool

	Size    bool     // SIZE is offered
	MaxSize int64    // its argument; 0: none
	Auth    []string // mechanisms, upper case
	Limits

	XForward, XClient []string // attributes, upper case; nil: not offered
}

// ParseExtensions reads the text of a reply to EHLO; its first line is only a
// greeting.
func ParseExtensions(text string) Extensions {
	var x Extensions
	_, text, _ = strings.Cut(text, "\n")
	for line := range strings.SplitSeq(text, "\n") {
		// AUTH=PLAIN is the form of a draft that old servers still announce.
		word, arg, _ := strings.Cut(strings.Replace(strings.ToUpper(strings.TrimSpace(line)), "AUTH=", "AUTH ", 1), " ")

		// A keyword that is not known here means nothing to us.
		switch word {
		case "PIPELINING":
			x.Pipelining = true
		case "8BITMIME":
			x.EightBitMIME = true
		case "SMTPUTF8":
			x.SMTPUTF8 = true
		case "DSN":
			x.DSN = true
		case "STARTTLS":
			x.StartTLS = true
		case "CHUNKING":
			x.Chunking = true
		case "ENHANCEDSTATUSCODES":
			x.EnhancedStatusCodes = true
		case "REQUIRETLS":
			x.RequireTLS = true
		case "LIMITS":
			x.Limits = parseLimits(arg)
		case "SIZE":
			x.Size, x.MaxSize = true, parseSize(arg)
		case "XFORWARD":
			x.XForward = strings.Fields(arg)
		case "XCLIENT":
			x.XClient = strings.Fields(arg)
		case "AUTH":
			x.Auth = append(x.Auth, strings.Fields(arg)...)
		}
	}
	return x
}

// Limits is what a server takes in one session (RFC 9422); 0: it does not say.
type Limits struct {
	MailMax       int // transactions
	RcptMax       int // recipients of a transaction
	RcptDomainMax int // domains of its recipients
}

// parseLimits reads the argument of LIMITS. A limit that is unknown, or no number of RFC 9422 section 3,
// is no limit.
func parseLimits(arg string) Limits {
	var l Limits
	for word := range strings.FieldsSeq(arg) {
		name, value, _ := strings.Cut(word, "=")
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || len(value) > 6 || value[0] == '0' {
			continue
		}
		switch name {
		case "MAILMAX":
			l.MailMax = int(n)
		case "RCPTMAX":
			l.RcptMax = int(n)
		case "RCPTDOMAINMAX":
			l.RcptDomainMax = int(n)
		}
	}
	return l
}

// parseSize reads SIZE's argument. Anything but a number is no limit.
func parseSize(s string) int64 {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 63)
	if err != nil {
		return 0
	}
	return int64(n)
}
