// Package arc verifies the Authenticated Received Chain of a message (RFC 8617): what each
// host that passed it on has found out about it, with that host's seal.
//
// A chain that passes proves which domain made which claim, not that the claim is true: a
// seal is worth as much as the trust in its domain. The work is bounded as in package dkim: at most 50
// sets of fields, and keys that are looked up together
// under one deadline, and only if the newest signature is of this body.
package arc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"tarishi/internal/dkim"
	"tarishi/internal/dkim/canon"
	"tarishi/internal/mail"
)

// Status is what a chain is worth. The zero value is None.
type Status uint8

// The results of RFC 8617 section 4.4, and one for trouble with the DNS.
const (
	None Status = iota // there is no chain
	Pass
	Fail
	TempError
)

// String returns the word of RFC 8601, such as "pass".
func (s Status) String() string {
	words := [...]string{"none", "pass", "fail", "temperror"}
	if int(s) < len(words) {
		return words[s]
	}
	return fmt.Sprintf("Status(%d)", s)
}

// Seal is what one host says, the first one's first.
type Seal struct {
	Domain, Selector string // of the seal, in lower case
	// Results is the value of its ARC-Authentication-Results behind the instance: in the
	// form of an Authentication-Results field.
	Results string
}

// Result is what came of a chain. Seals mean something only with Pass.
type Result struct {
	Status Status
	Reason string // why it does not pass
	Seals  []Seal
}

// Verifier verifies chains. It may be used by many goroutines.
type Verifier struct {
	Resolver dkim.Resolver
	Timeout  time.Duration // for the look-ups of all keys of a message; 0: no more than those of the Resolver
}

// Verify verifies the chain of a message. canon.ErrLong, and what prevents reading the
// message, are errors.
func (v *Verifier) Verify(ctx context.Context, c mail.Content) (Result, error) {
	var (
		whole *canon.Section
		chain []*set
		fault error
		body  *canon.BodyHash
	)
	// A message without a whole chain is not read to its end.
	err := canon.Scan(c, func(section *canon.Section) error {
		whole = section
		chain, fault = readChain(section)
		if fault != nil || len(chain) == 0 {
			return errDone // the body does not matter
		}
		body = canon.NewBodyHash(chain[len(chain)-1].message.body, sha256.New())
		return nil
	}, func(p []byte) { body.Add(p) })
	switch {
	case fault != nil:
		return Result{Status: Fail, Reason: fault.Error()}, nil
	case errors.Is(err, errDone) || errors.Is(err, canon.ErrNoField):
		return Result{}, nil
	case err != nil:
		return Result{}, err
	}
	// No key is looked up for a message that is not what was signed.
	if !bytes.Equal(body.Finish(), chain[len(chain)-1].message.hashed) {
		return Result{Status: Fail, Reason: "body hash did not verify"}, nil
	}
	return v.verifySets(ctx, whole, chain), nil
}

// errDone ends the reading of a message.
var errDone = errors.New("done")

// verifySets verifies the newest signature of the message, and all seals.
func (v *Verifier) verifySets(ctx context.Context, whole *canon.Section, chain []*set) Result {
	if v.Timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, v.Timeout)
		defer cancel()
		ctx = limited
	}
	// Signatures of earlier hosts need not be valid any more: the next one may have changed the
	// message, and has said that it was right before.
	newest := chain[len(chain)-1]
	needed := []*signature{&newest.message.signature}
	for _, s := range chain {
		needed = append(needed, &s.seal)
	}
	// Keys come together, for a chain may be long.
	var all sync.WaitGroup
	for _, one := range needed {
		all.Go(func() {
			one.key, one.fault = dkim.LookupKey(ctx, v.Resolver, one.selector, one.domain, one.algorithm)
		})
	}
	all.Wait()
	// A key that is missing breaks the chain. One that cannot be had now says nothing of it.
	for _, one := range needed {
		if one.fault != nil {
			r := Result{Status: Fail, Reason: one.fault.Error()}
			if dkim.StatusOf(one.fault) == dkim.TempError {
				r.Status = TempError
			}
			return r
		}
	}

	// The message, then the chain. A seal is of all sets up to its own.
	m := &newest.message
	if !m.key.Verify(sha256.Sum256(m.header.Signed(whole.Pick(m.names), m.field, m.blank)), m.signed) {
		return Result{Status: Fail, Reason: fmt.Sprintf("message signature %d did not verify", len(chain))}
	}
	var r Result
	var before []byte
	for i, s := range chain {
		before = canon.Relaxed.AppendField(before, s.results)
		before = canon.Relaxed.AppendField(before, s.message.field)
		own := canon.Relaxed.Signed(nil, s.seal.field, s.seal.blank)
		sum := sha256.New()
		sum.Write(before)
		sum.Write(own)
		if !s.seal.key.Verify([sha256.Size]byte(sum.Sum(nil)), s.seal.signed) {
			return Result{Status: Fail, Reason: fmt.Sprintf("seal %d did not verify", i+1)}
		}
		before = canon.Relaxed.AppendField(before, s.seal.field)
		r.Seals = append(r.Seals, Seal{Domain: s.seal.domain, Selector: s.seal.selector, Results: s.said})
	}
	r.Status = Pass
	return r
}
