// Package dkim signs messages and verifies their signatures (DomainKeys Identified
// Mail, RFC 6376, with the algorithms and key sizes of RFC 8301 and RFC 8463).
//
// A message is streamed: its header section is held, at most 1 MiB, and its body is
// hashed as it passes, once for each way to canonicalize it, however many signatures
// or keys there are. All work is linear in the size of the message, whatever its
// sender has put into it: signatures beyond a limit are not looked at, RSA keys are
// bounded in size, and keys are looked up, together and under one deadline, only for
// well-formed signatures with the right body hash.
//
// A signature counts for the message as it stands on the wire. A Signer's fields are
// therefore the last change to a message: they go in front of it, and nothing behind
// them may change.
//
// Signatures by rsa-sha1 and those that leave a part of the body unsigned (l=) are
// never valid.
package dkim

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Resolver looks up keys. Its errors are those of package dns.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
}

// Status is what came of a signature. The zero value is None.
type Status uint8

// The results of RFC 8601 section 2.7.1.
const (
	None      Status = iota // there is no signature
	Pass                    // it is valid
	Fail                    // the message is not what was signed
	Policy                  // it is not acceptable here, valid or not
	TempError               // its key could not be had; may be different next time
	PermError               // it, or its key, can never be used
)

// String returns the word of RFC 8601, such as "temperror".
func (s Status) String() string {
	words := [...]string{"none", "pass", "fail", "policy", "temperror", "permerror"}
	if int(s) < len(words) {
		return words[s]
	}
	return fmt.Sprintf("Status(%d)", s)
}

// Result is what a Verifier has found out about one signature. The texts are those of
// the signature, without blanks; they may hold any other characters.
type Result struct {
	Status Status
	Reason string // why it is not valid, in Haraka's words; "" with Pass, and with a Fail of the signature itself

	Domain    string   // d=, in lower case
	Selector  string   // s=, in lower case
	Identity  string   // i=, or what stands for it; "" until it could be read
	Algorithm string   // a=
	Start     string   // the first octets of b=, which tell signatures apart (RFC 6008)
	Headers   []string // h=
	Testing   bool     // the domain only tests DKIM (t=y of the key)
	KeyBits   int      // of an RSA key; 0: it was not looked up, or is none

	Created, Expires time.Time // t= and x=; zero: not said
}

// fault is why a signature or a key cannot be used.
type fault struct {
	status Status
	text   string
}

// Error returns Haraka's words for the fault.
func (f *fault) Error() string { return f.text }

// StatusOf returns what an error of LookupKey makes of the signature.
func StatusOf(err error) Status {
	if f := (*fault)(nil); errors.As(err, &f) {
		return f.status
	}
	return PermError
}

func permFault(text string) error { return &fault{PermError, text} }
