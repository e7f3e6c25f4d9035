package mail

import "time"

// Complete adds what a submitted message must not go out without (RFC 6409
// section 8), Message-Id and Date at the end of the section, and in front of it
// a trace field with received as its text, unless that is "" or "disabled". me is
// our host name.
func (h *Header) Complete(id ID, me, received string, now time.Time) {
	if v := h.Get("Message-Id"); v == "" || v == "<>" {
		h.Remove("Message-Id")
		h.Add("Message-Id", "<"+string(id)+"@"+me+">")
	}

	// An author's own Date and Message-Id are kept: signatures may cover them.
	date := now.Format("Mon, 02 Jan 2006 15:04:05 -0700")
	if !h.Has("Date") {
		h.Add("Date", date)
	}
	if received != "" && received != "disabled" {
		h.AddLeading("Received", "("+received+"); "+date)
	}
}
