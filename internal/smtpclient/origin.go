package smtpclient

import (
	"errors"
	"strings"

	"tarishi/internal/mail"
	"tarishi/internal/smtpclient/command"
)

// actFor makes the server act as if o had connected to it, if that is wanted and
// offered and not so already. A refusal costs the connection: the message would
// be judged as if we had sent it. XCLIENT begins the session anew, so EHLO (by
// the client's own name) and AUTH follow. A server for which we acted as
// somebody is of no use for a message of our own, nor for that of another client
// when it does not offer XCLIENT any more.
func (c *Client) actFor(o *mail.Origin) *Failure {
	if c.o.Forwards != mail.XClient || o == nil && c.origin == "" || len(c.ext.XClient) == 0 {
		return nil
	}

	// A connection that acts for somebody else can only be given up, unless the server lets
	// us act for the next client.
	if o == nil {
		return c.giveUpOwned()
	}
	words := c.ext.ClientAttributes(o)
	if len(words) == 0 {
		return nil
	}
	attributes := strings.Join(words, " ")
	if attributes == c.origin {
		return nil
	}
	if c.bound {
		return c.giveUpOwned()
	}

	// XCLIENT is allowed between transactions only.
	if f := c.endTransaction(); f != nil {
		return f
	}
	if f := c.command(StageXClient, "XCLIENT", attributes); f != nil {
		return f
	}
	switch c.conn.Last.Class() {
	case 2:
	case 3:
		return c.unexpected(StageXClient)
	default:
		return c.refused(StageXClient)
	}

	// The session begins anew, with the client's name if it can be said.
	c.origin, c.auth = attributes, false
	name := o.Helo
	if name == "" || len(name) > command.MaxAttribute || strings.ContainsFunc(name, notHelo) {
		name = c.o.Helo
	}
	offered := c.ext.XClient
	if f := c.introduce(name); f != nil {
		return f
	}
	if len(c.ext.XClient) == 0 { // Postfix offers it only to those it trusts, and now we are another
		c.ext.XClient, c.bound = offered, true
	}
	return c.authenticate()
}

// giveUpOwned gives up a connection that belongs to another client. It is as stale as
// a dead one, also where nothing was sent for him.
func (c *Client) giveUpOwned() *Failure {
	f := c.failure(StageXClient, nil, errTaken)
	f.lost, f.Fresh = true, false
	return f
}

var errTaken = errors.New("we act for another client on this connection")
