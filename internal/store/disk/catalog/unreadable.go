package catalog

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"strconv"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/record"
)

// Examples is how many things the log names that have the same trouble.
const Examples = 10

// noteUnreadable remembers why a part of a message cannot be read; nil: it can.
func (c *Catalog) noteUnreadable(id mail.ID, content bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.index.Readable(id, content)
	} else {
		c.index.NoteUnreadable(id, content, Reason(err))
	}
}

// Reason is an error without the name of a file, which is another one for each
// message, and with the user where that matters.
func Reason(err error) string {
	reason := err.Error()
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		reason = p.Op + ": " + p.Err.Error()
	}
	if errors.Is(err, fs.ErrPermission) {
		reason += " for " + CurrentUser()
	}
	return record.ClipReply(reason)
}

// CurrentUser is the name, or else the number, of the user of this process.
func CurrentUser() string {
	uid := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "uid " + uid
}

// Unreadable is store.Administration's. Before every message was visited once some may
// not have been tried yet.
func (c *Catalog) Unreadable() store.Unreadable {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index.Unreadable.Summary()
}

// WalkUnreadable is store.Administration's, in the order of the IDs.
func (c *Catalog) WalkUnreadable(fn func(id mail.ID, reason string) bool) {
	c.mu.Lock()
	all := c.index.UnreadMessages()
	c.mu.Unlock()
	for _, m := range all {
		if !fn(m.ID, m.Reason) {
			return
		}
	}
}

// logUnreadable writes one line about the messages that cannot be read, if there are
// more or fewer than it said before.
func (c *Catalog) logUnreadable() {
	c.mu.Lock()
	n, reason, some, news := c.index.TakeNews(Examples)
	c.mu.Unlock()
	if news {
		c.log.Error("queue: messages cannot be read now, they stay and are tried again", zap.Int("messages", n), zap.String("reason", reason), zap.Strings("some", some))
	}
}
