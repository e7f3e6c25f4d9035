package dkim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"time"

	"tarishi/internal/dkim/canon"
	"tarishi/internal/mail"
)

// Verifier verifies the signatures of messages. It may be used by many goroutines.
type Verifier struct {
	Resolver Resolver
	Timeout  time.Duration    // for the look-ups of all keys of a message; 0: no more than those of the Resolver
	Max      int              // signatures of a message that are looked at, from the top; 0: 8
	Skew     time.Duration    // by which the clock of a signer may be ahead
	Now      func() time.Time // nil: time.Now
}

// defaultMax is for messages that several hosts have signed, with two keys each.
const defaultMax = 8

// check is a signature while it is verified.
type check struct {
	result *Result
	*signature
}

// Verify returns a result for each signature of a message, in the order in which they
// stand in it; none if there is none. canon.ErrLong, and what prevents reading the message,
// are errors.
func (v *Verifier) Verify(ctx context.Context, c mail.Content) ([]Result, error) {
	var (
		whole   *canon.Section
		results []Result
		checks  []check
		bodies  [2]*canon.BodyHash // by algorithm; nil: no signature needs it
	)
	// One pass over the message serves all signatures.
	err := canon.Scan(c, func(section *canon.Section) error {
		whole = section
		results, checks = v.parse(whole)
		for _, one := range checks {
			if bodies[one.body] == nil {
				bodies[one.body] = canon.NewBodyHash(one.body, sha256.New())
			}
		}
		return nil
	}, func(p []byte) {
		for _, h := range bodies {
			if h != nil {
				h.Add(p)
			}
		}
	})
	if err != nil {
		if errors.Is(err, canon.ErrNoField) {
			return nil, nil
		}
		return nil, err
	}

	// Keys are looked up only for signatures of this body.
	var sums [2][]byte
	for i, h := range bodies {
		if h != nil {
			sums[i] = h.Finish()
		}
	}
	var open []check
	for _, one := range checks {
		if !bytes.Equal(one.hashed, sums[one.body]) {
			one.result.Status, one.result.Reason = Fail, "body hash did not verify"
			continue
		}
		open = append(open, one)
	}
	v.verify(ctx, whole, open)
	return results, nil
}

// parse reads the signatures of a header section. Those in checks are well formed.
func (v *Verifier) parse(whole *canon.Section) (results []Result, checks []check) {
	// Hosts add their signatures on top: those of the last ones come first.
	places := whole.Find(strings.ToLower(fieldName))
	limit := v.Max
	if limit <= 0 {
		limit = defaultMax
	}
	places = places[:min(limit, len(places))]
	now := time.Now
	if v.Now != nil {
		now = v.Now
	}
	results = make([]Result, len(places))
	for i, at := range places {
		s, err := parseSignature(whole.Fields[at], now(), v.Skew, &results[i])
		if err != nil {
			results[i].reject(err)
			continue
		}
		checks = append(checks, check{&results[i], s})
	}
	return results, checks
}

// reject sets a result from an error that is a *fault.
func (r *Result) reject(err error) {
	r.Status, r.Reason = StatusOf(err), err.Error()
}

// verify looks the keys up, all at once, and tries them.
func (v *Verifier) verify(ctx context.Context, whole *canon.Section, open []check) {
	if len(open) == 0 {
		return
	}
	// The deadline is for all of them: a message must not wait for one slow zone each.
	if v.Timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, v.Timeout)
		defer cancel()
		ctx = limited
	}
	if len(open) == 1 {
		v.tryKey(ctx, whole, open[0])
		return
	}
	var all sync.WaitGroup
	for _, one := range open {
		all.Go(func() { v.tryKey(ctx, whole, one) })
	}
	all.Wait()
}

// tryKey looks up the key of one signature and tries it.
func (v *Verifier) tryKey(ctx context.Context, whole *canon.Section, c check) {
	r := c.result
	key, err := LookupKey(ctx, v.Resolver, r.Selector, r.Domain, r.Algorithm)
	if err != nil {
		r.reject(err)
		return
	}
	// Some domains allow no identity below them.
	r.Testing, r.KeyBits = key.Testing, key.Bits
	of := r.Identity[strings.LastIndexByte(r.Identity, '@')+1:]
	switch {
	case key.strict && !strings.EqualFold(of, r.Domain):
		r.reject(permFault("i/d selector domain mismatch (t=s)"))
	case key.Verify(sha256.Sum256(c.header.Signed(whole.Pick(r.Headers), c.field, c.blank)), c.signed):
		r.Status = Pass
	default:
		r.Status = Fail
	}
}
