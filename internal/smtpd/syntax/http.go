package syntax

import "strings"

// httpMethods are those of the IANA registry of HTTP methods, and what else is
// seen in requests: RFC 9110 to 9114, WebDAV, RTSP, SIP, and proxies.
const httpMethods = " ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DEBUG DELETE DESCRIBE GET HEAD INVITE LABEL LINK LOCK M-SEARCH MERGE " +
	"MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE NOTIFY OPTIONS ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PURGE PUT " +
	"QUERY REBIND REGISTER REPORT SEARCH SOURCE SUBSCRIBE TRACE TRACK UNBIND UNCHECKOUT UNLINK UNLOCK UNSUBSCRIBE UPDATE UPDATEREDIRECTREF VERSION-CONTROL "

// IsRequest reports whether the line is one of HTTP or a protocol of its kind: a
// browser that a page made talk to us would say its commands in the next lines.
func (c Command) IsRequest() bool {
	words := strings.Fields(string(c.line))
	if len(words) == 0 {
		return false
	}
	method := strings.ToUpper(words[0])
	if strings.Contains(httpMethods, " "+method+" ") {
		return true
	}
	version := strings.ToUpper(words[len(words)-1])
	return len(words) > 2 && (strings.HasPrefix(version, "HTTP/") || strings.HasPrefix(version, "RTSP/") || strings.HasPrefix(version, "SIP/"))
}
