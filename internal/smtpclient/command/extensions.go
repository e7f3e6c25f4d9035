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

// parseSize reads SIZE's argument. Anything but a number is no limit.
func parseSize(s string) int64 {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 63)
	if err != nil {
		return 0
	}
	return int64(n)
}
