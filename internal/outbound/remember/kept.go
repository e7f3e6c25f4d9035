package remember

import "tarishi/internal/mail"

// Kept is what plugins left with a delivery until its next attempt.
type Kept struct {
	Remembered
	Asked       bool           // send_email and get_mx have been asked about this attempt
	Hops        []mail.NextHop // that they gave then
	ReversePath *mail.Address  // hook.Delivery.ReversePath, from then
	Stored      string         // the part that the queue remembers
}

// IsNothing reports whether the next attempt is the same without.
func (k Kept) IsNothing() bool {
	return len(k.Notes) == 0 && k.Message == nil && !k.ForceTLS && !k.Spared && !k.Asked && k.Stored == ""
}

// Unasked has the hooks asked again.
func (k Kept) Unasked() Kept {
	k.Asked, k.Hops, k.ReversePath = false, nil, nil
	return k
}

// Clone is for another delivery of the message, which may run at the same time.
func (k Kept) Clone() Kept {
	k.Notes, k.Message = k.Notes.Clone(), k.Message.Clone()
	return k
}
