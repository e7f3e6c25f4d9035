// Package command is the grammar of the command line: words, flags and arguments from one
// table, the help and the completion of shells from the same rows. What a command does is
// no matter of it.
package command

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"tarishi/internal/control"
)

// Command is a row of a Table.
type Command struct {
	Name   string // its words, such as "queue list"
	Text   string // its purpose: one sentence
	Hidden bool   // not in the help
	// Parameters are flags and arguments. A flag without a placeholder is a switch
	// with the value "true".
	Parameters []control.Parameter
	Run        func(s Streams, a control.Arguments) error
	// Complete returns what shells offer for its argument; nil: the values of that one's
	// kind.
	Complete func() []Word
}

// Streams is where commands write: results to Out, everything else to Err. The daemon
// shows its work in Title; nil: the system has none.
type Streams struct {
	Out, Err io.Writer
	Title    func(string)
}

// Table is all commands of a program, in the order of its help.
type Table struct {
	Program  string // its name, as it is typed
	About    string // its purpose: one sentence
	Commands []Command
	Default  string            // the command of a line that begins with a flag
	Groups   map[string]string // words with which the names of several commands begin, and what those do
	Short    map[string]string // flags with one dash, such as "c", and their other names
}

// Help is a flag that every command understands.
const Help = "help"

// ErrHelp is returned by Parse when help is asked for.
var ErrHelp = errors.New("help")

// Find returns the command that a line begins with and the rest of the line. If
// its words are only the first ones of commands it returns those words, the group.
func (t *Table) Find(line []string) (c *Command, rest []string, group string, err error) {
	// Flags of a command stand behind its words.
	words := line
	if i := slices.IndexFunc(line, func(word string) bool { return strings.HasPrefix(word, "-") }); i >= 0 {
		words = line[:i]
	}
	if len(words) == 0 {
		words, line = []string{t.Default}, slices.Concat([]string{t.Default}, line)
	}

	// The longest name wins; words behind it are arguments.
	for n := len(words); n > 0; n-- {
		name := strings.Join(words[:n], " ")
		for i := range t.Commands {
			switch {
			case t.Commands[i].Name == name:
				return &t.Commands[i], line[n:], "", nil
			case strings.HasPrefix(t.Commands[i].Name, name+" "):
				group = name
			}
		}
		if group != "" {
			return nil, line[n:], group, t.unknown(group, words[n:])
		}
	}
	return nil, nil, "", fmt.Errorf("unexpected argument %s", words[0])
}

// unknown is the error for words behind those of a group.
func (t *Table) unknown(group string, words []string) error {
	if len(words) > 0 {
		return fmt.Errorf("unexpected argument %s", words[0])
	}
	return fmt.Errorf("expected one of %s", strings.Join(t.members(group), ", "))
}

// Parse reads the flags and arguments behind the words of a command. It checks
// that flags are known and have values, and the number of arguments; values are
// for the command to check.
func (t *Table) Parse(c *Command, line []string) (control.Arguments, error) {
	a := control.Arguments{}
	var words []string
	for len(line) > 0 {
		word := line[0]
		line = line[1:]
		switch {
		case word == "--":
			words, line = append(words, line...), nil
		case word == "-" || !strings.HasPrefix(word, "-"):
			words = append(words, word)
		default:
			rest, err := t.parseFlag(c, a, word, line)
			if err != nil {
				return nil, err
			}
			line = rest
		}
	}

	// Arguments take the words in order. One that may be there several times
	// takes all that are left.
	for _, p := range c.Parameters {
		if !p.Positional {
			if p.Required && len(a[p.Name]) == 0 {
				return nil, fmt.Errorf("missing flag --%s=%s", p.Name, p.Kind.Placeholder)
			}
			continue
		}
		n := min(1, len(words))
		if p.Several {
			n = len(words)
		}
		if n == 0 && p.Required {
			return nil, fmt.Errorf("missing argument <%s>", p.Name)
		}
		if n > 0 {
			a[p.Name] = words[:n]
		}
		words = words[n:]
	}
	if len(words) > 0 {
		return nil, fmt.Errorf("unexpected argument %s", words[0])
	}
	return a, nil
}

// parseFlag reads a flag with its value, which may be the next word of the line,
// and returns the rest of the line.
func (t *Table) parseFlag(c *Command, a control.Arguments, word string, line []string) (rest []string, err error) {
	// --flag=value, --flag value, -f value and -fvalue are the same.
	name, value, given := strings.Cut(word[1:], "=")
	if long, ok := strings.CutPrefix(name, "-"); ok {
		name = long
	} else if known, ok := t.Short[name[:1]]; ok {
		if !given && len(name) > 1 {
			value, given = name[1:], true // -cDIR
		}
		name = known
	} else {
		name = ""
	}
	if name == Help {
		return nil, ErrHelp
	}

	// An argument of the same name is no flag, and a preset cannot be changed.
	i := slices.IndexFunc(c.Parameters, func(p control.Parameter) bool {
		return p.Name == name && !p.Positional && p.Preset == ""
	})
	if i < 0 {
		return nil, fmt.Errorf("unknown flag %s", strings.SplitN(word, "=", 2)[0])
	}
	p := c.Parameters[i]
	switch {
	case p.Kind.Placeholder == "" && !given:
		value = "true"
	case p.Kind.Placeholder == "" && value != "true" && value != "false":
		return nil, fmt.Errorf("--%s: %q is neither true nor false", name, value)
	case !given && (len(line) == 0 || isFlag(line[0])):
		return nil, fmt.Errorf("--%s needs a value, %s", name, p.Kind.Placeholder)
	case !given:
		value, line = line[0], line[1:]
	}

	// The last one winning would be a surprise with conditions.
	if len(a[name]) > 0 && !p.Several {
		return nil, fmt.Errorf("--%s is given more than once", name)
	}
	a[name] = append(a[name], value)
	return line, nil
}

// isFlag reports whether a word is more likely a flag than the value of one: "-5"
// and "-" are values.
func isFlag(word string) bool {
	return len(word) > 1 && word[0] == '-' && (word[1] < '0' || word[1] > '9')
}
