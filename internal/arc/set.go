package arc

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tarishi/internal/dkim"
	"tarishi/internal/dkim/canon"
)

// The fields of a set, in lower case.
const (
	resultsField = "arc-authentication-results"
	messageField = "arc-message-signature"
	sealField    = "arc-seal"
)

// maxSets is how long a chain can be (RFC 8617 section 4.2.1).
const maxSets = 50

// maxName is how many octets a domain or a selector has, at most.
const maxName = 255

// set is what one host has added.
type set struct {
	results []byte // raw
	said    string // what stands in it behind the instance
	message messageSignature
	seal    signature
}

// signature is what both kinds have.
type signature struct {
	field                       []byte // raw
	blank                       [2]int // where in it the value of b= stands
	algorithm, domain, selector string
	signed                      []byte

	key   *dkim.PublicKey // once it was looked up
	fault error           // or why it is not there
}

// messageSignature is that of the message (RFC 8617 section 4.1.2).
type messageSignature struct {
	signature
	header, body canon.Algorithm
	hashed       []byte
	names        []string
}

var (
	errMany       = fmt.Errorf("more than %d sets", maxSets)
	errIncomplete = errors.New("a set is incomplete, or there twice")
	errMalformed  = errors.New("malformed field")
	errBroken     = errors.New("the chain was broken before")
	errUnsigned   = errors.New("from field not signed")
)

// readChain collects the sets of a header section by their instances. No chain at all is
// no error.
func readChain(whole *canon.Section) ([]*set, error) {
	// Counted first, for anybody can write a thousand of them.
	seals, messages, results := whole.Find(sealField), whole.Find(messageField), whole.Find(resultsField)
	n := len(seals)
	switch {
	case n == 0 && len(messages) == 0 && len(results) == 0:
		return nil, nil
	case max(n, len(messages), len(results)) > maxSets:
		return nil, errMany
	case n != len(messages) || n != len(results):
		return nil, errIncomplete
	}

	// Each field says which set it belongs to.
	chain := make([]*set, n)
	for i := range chain {
		chain[i] = &set{}
	}
	for _, at := range results {
		if err := readResults(chain, whole.Fields[at]); err != nil {
			return nil, err
		}
	}
	for _, at := range messages {
		if err := readMessage(chain, whole.Fields[at]); err != nil {
			return nil, err
		}
	}
	for _, at := range seals {
		if err := readSeal(chain, whole.Fields[at]); err != nil {
			return nil, err
		}
	}
	return chain, nil
}

// instance returns the set with a number.
func instance(chain []*set, text string) (*set, int, error) {
	// The number is part of the signed text, so it has one spelling only.
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > len(chain) || text[0] == '+' || text[0] == '0' {
		return nil, 0, errIncomplete
	}
	return chain[n-1], n, nil
}

// readResults takes an ARC-Authentication-Results field over.
func readResults(chain []*set, field []byte) error {
	// The instance comes first, in front of an otherwise plain Authentication-Results.
	head, said, _ := strings.Cut(canon.Value(field), ";")
	name, text, _ := strings.Cut(head, "=")
	s, _, err := instance(chain, strings.TrimSpace(text))
	if err != nil || strings.TrimSpace(name) != "i" || s.results != nil {
		return errIncomplete
	}
	s.results, s.said = field, strings.TrimSpace(said)
	return nil
}

// readSignature reads what both kinds of signatures have.
func readSignature(field []byte) (signature, canon.Tags, error) {
	// Both kinds of signature have these tags.
	text := canon.Value(field)
	t, err := canon.ParseTags(text)
	if err != nil {
		return signature{}, nil, errMalformed
	}
	s := signature{
		field: field, algorithm: strings.ToLower(t.Text("a")), domain: strings.ToLower(t.Text("d")), selector: strings.ToLower(t.Text("s")),
	}
	// The place of b= counts in the raw field, for its value is cut out of that.
	b, offset := t.Find("b"), len(field)-len(text)
	s.blank = [2]int{offset + b.Start, offset + b.End}
	if s.signed, err = base64.StdEncoding.DecodeString(t.Text("b")); err != nil || len(s.signed) == 0 || s.domain == "" || s.selector == "" ||
		len(s.domain) > maxName || len(s.selector) > maxName {
		return signature{}, nil, errMalformed
	}
	return s, t, nil
}

// readMessage takes an ARC-Message-Signature field over.
func readMessage(chain []*set, field []byte) error {
	of, t, err := readSignature(field)
	if err != nil {
		return err
	}
	// Each instance is there once: a second one could be the genuine one.
	s, _, err := instance(chain, t.Text("i"))
	if err != nil || s.message.field != nil {
		return errIncomplete
	}
	m := messageSignature{signature: of, names: t.List("h")}
	if m.hashed, err = base64.StdEncoding.DecodeString(t.Text("bh")); err != nil || len(m.hashed) == 0 || t.Has("l") {
		return errMalformed
	}
	// As in DKIM, simple is the default.
	header, body, both := strings.Cut(strings.ToLower(t.Text("c")), "/")
	if header != "" {
		if m.header, err = canon.ParseAlgorithm(header); err == nil && both {
			m.body, err = canon.ParseAlgorithm(body)
		}
		if err != nil {
			return errMalformed
		}
	}
	for i, name := range m.names {
		m.names[i] = strings.ToLower(name)
	}
	// Readers look at From, so it must be covered; seals are covered by seals alone.
	switch {
	case slices.Contains(m.names, sealField):
		return errMalformed // RFC 8617 section 4.1.2
	case !slices.Contains(m.names, "from"):
		return errUnsigned
	}
	s.message = m
	return nil
}

// readSeal takes an ARC-Seal field over. The first host knows of no chain, each later one
// says that the chain passed.
func readSeal(chain []*set, field []byte) error {
	of, t, err := readSignature(field)
	if err != nil {
		return err
	}
	// A seal is of whole sets: it cannot choose its fields.
	s, n, err := instance(chain, t.Text("i"))
	switch {
	case err != nil || s.seal.field != nil:
		return errIncomplete
	case t.Has("h") || t.Has("bh"):
		return errMalformed // RFC 8617 section 4.1.3
	case n == 1 && t.Text("cv") != "none", n > 1 && t.Text("cv") != "pass":
		return errBroken
	}
	s.seal = of
	return nil
}
