package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tarishi/internal/control"
)

// command is one row of the table that the command line is read with. The rows of
// control's table are among them.
type command struct {
	name   string // its words
	text   string // its purpose: one sentence
	hidden bool   // not in the help
	// parameters are flags and arguments. A flag without a placeholder is a switch
	// with the value "true".
	parameters []control.Parameter
	run        func(s streams, a control.Arguments) error
}

// Parameters that several commands have.
var (
	configsFlag = control.Parameter{
		Name: "configs", Kind: control.Kind{Placeholder: "DIR"},
		Text: "The instance: a folder with config/, queue/ and plugins/. Without it: $TARISHI_DIR, the current folder if it has config/, /etc/tarishi.",
	}
	jsonFlag   = control.Parameter{Name: "json", Text: "Print one JSON object a line."}
	dryRunFlag = control.Parameter{Name: "dry-run", Text: "Only read the files and say what would be done."}
)

// helpFlag is understood by every command.
const helpFlag = "help"

// shortFlags are flags with one dash.
var shortFlags = map[string]string{"c": configsFlag.Name, "h": helpFlag}

// errHelp is returned by parseLine when help is asked for.
var errHelp = errors.New("help")

// defaultCommand runs when the line begins with a flag: 'tarishi -c DIR'.
const defaultCommand = "serve"

// findCommand returns the command that a line begins with and the rest of the line. If
// its words are only the first ones of commands it returns those words, the group.
func findCommand(all []command, line []string) (c *command, rest []string, group string, err error) {
	// Flags of a command stand behind its words.
	words := line
	if i := slices.IndexFunc(line, func(word string) bool { return strings.HasPrefix(word, "-") }); i >= 0 {
		words = line[:i]
	}
	if len(words) == 0 {
		words, line = []string{defaultCommand}, slices.Concat([]string{defaultCommand}, line)
	}

	// The longest name wins; words behind it are arguments.
	for n := len(words); n > 0; n-- {
		name := strings.Join(words[:n], " ")
		for i := range all {
			switch {
			case all[i].name == name:
				return &all[i], line[n:], "", nil
			case strings.HasPrefix(all[i].name, name+" "):
				group = name
			}
		}
		if group != "" {
			return nil, line[n:], group, unknown(all, group, words[n:])
		}
	}
	return nil, nil, "", fmt.Errorf("unexpected argument %s", words[0])
}

// unknown is the error for words behind those of a group.
func unknown(all []command, group string, words []string) error {
	if len(words) > 0 {
		return fmt.Errorf("unexpected argument %s", words[0])
	}
	return fmt.Errorf("expected one of %s", strings.Join(members(all, group), ", "))
}

// parseLine reads the flags and arguments behind the words of a command. It checks
// that flags are known and have values, and the number of arguments; values are
// for the command to check.
func (c *command) parseLine(line []string) (control.Arguments, error) {
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
			rest, err := c.parseFlag(a, word, line)
			if err != nil {
				return nil, err
			}
			line = rest
		}
	}

	// Arguments take the words in order. One that may be there several times
	// takes all that are left.
	for _, p := range c.parameters {
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
func (c *command) parseFlag(a control.Arguments, word string, line []string) (rest []string, err error) {
	// --flag=value, --flag value, -f value and -fvalue are the same.
	name, value, given := strings.Cut(word[1:], "=")
	if long, ok := strings.CutPrefix(name, "-"); ok {
		name = long
	} else if known, ok := shortFlags[name[:1]]; ok {
		if !given && len(name) > 1 {
			value, given = name[1:], true // -cDIR
		}
		name = known
	} else {
		name = ""
	}
	if name == helpFlag {
		return nil, errHelp
	}

	// An argument of the same name is no flag, and a preset cannot be changed.
	i := slices.IndexFunc(c.parameters, func(p control.Parameter) bool {
		return p.Name == name && !p.Positional && p.Preset == ""
	})
	if i < 0 {
		return nil, fmt.Errorf("unknown flag %s", strings.SplitN(word, "=", 2)[0])
	}
	p := c.parameters[i]
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

// switched reports whether a switch is on.
func switched(a control.Arguments, name string) bool { return a.Text(name) == "true" }

// without returns the arguments that are not of these names.
func without(a control.Arguments, names ...string) control.Arguments {
	a = maps.Clone(a)
	for _, name := range names {
		delete(a, name)
	}
	return a
}
