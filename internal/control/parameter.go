package control

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"tarishi/internal/mail"
)

// Parameter is something that an operation can be given: in HTTP a parameter of
// the URL, of a command a flag or an argument.
type Parameter struct {
	Name string
	Kind Kind
	Text string // its meaning: one sentence

	Several    bool   // it may be given more than once
	Positional bool   // the command takes it as argument and not as flag
	Required   bool   // without it nothing is done
	Shared     string // the name of a set of parameters that operations have in common
	Preset     string // what the command always gives; then it has no flag
	Empty      string // what to say of an empty value; "": that it is empty
}

// Kind is what the values of a parameter are.
type Kind struct {
	Placeholder string   // in usage: "DOMAIN"
	Values      []string // all that there are, if they are few
	// Check returns an error that describes a wrong value; nil: every value is
	// right. name is the parameter as the user wrote it.
	Check func(name, value string) error
}

// Number is a whole number between two bounds.
func Number(least, most int) Kind {
	return Kind{Placeholder: "N", Check: func(name, value string) error {
		n, err := strconv.Atoi(value)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %q is no number", name, value)
		case n < least:
			return fmt.Errorf("%s must be at least %d", name, least)
		case n > most:
			return fmt.Errorf("%s must be at most %d", name, most)
		}
		return nil
	}}
}

// MessageID is the ID of a message.
var MessageID = Kind{Placeholder: "ID", Check: func(_, value string) error {
	if !mail.ID(value).Valid() {
		return fmt.Errorf("%q is no ID", value)
	}
	return nil
}}

// Arguments are the values of parameters, by name.
type Arguments map[string][]string

// Text returns the value of a parameter, "" if it is not there.
func (a Arguments) Text(name string) string {
	if len(a[name]) == 0 {
		return ""
	}
	return a[name][0]
}

// Number returns the value of a Number, or absent if it is not there.
func (a Arguments) Number(name string, absent int) int {
	n, err := strconv.Atoi(a.Text(name))
	if err != nil { // Check has seen to it that it is none
		return absent
	}
	return n
}

// Check returns an error that wraps ErrInvalid if the operation cannot have these
// arguments. dashes is what stands before the names of flags where the user wrote
// them.
func (op *Operation) Check(a Arguments, dashes string) error {
	// In order, so that the same mistakes always get the same answer.
	for _, name := range slices.Sorted(maps.Keys(a)) {
		p := op.Parameter(name)
		if p == nil {
			return fmt.Errorf("%w: unknown parameter %q", ErrInvalid, name)
		}
		if !p.Positional {
			name = dashes + name
		}
		if len(a[p.Name]) > 1 && !p.Several {
			return fmt.Errorf("%w: %s is given more than once", ErrInvalid, name)
		}

		// An empty value is more likely a variable that was not set than a wish
		// for all messages.
		for _, value := range a[p.Name] {
			if value == "" {
				return fmt.Errorf("%w: %s", ErrInvalid, cmp.Or(p.Empty, name+" is empty"))
			}
			if p.Kind.Check == nil {
				continue
			}
			if err := p.Kind.Check(name, value); err != nil {
				return fmt.Errorf("%w: %w", ErrInvalid, err)
			}
		}
	}
	for _, p := range op.Parameters {
		if p.Required && len(a[p.Name]) == 0 {
			return fmt.Errorf("%w: %s is missing", ErrInvalid, p.Name)
		}
	}
	return nil
}
