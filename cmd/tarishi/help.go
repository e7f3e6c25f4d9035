package main

import (
	"fmt"
	"io"
	"strings"

	"tarishi/internal/control"
)

const about = "A mail transfer agent: SMTP in, a chain of hooks, a relay and a durable outbound queue."

// groups are words with which the names of several commands begin.
var groups = map[string]string{"queue": "Look into the queue and act on it", "dkim": "Make and check keys for signatures"}

// printHelp prints the commands of a group, "" being all.
func printHelp(w io.Writer, all []command, group string) {
	if group == "" {
		fmt.Fprintf(w, "Usage: tarishi <command> [flags]\n\n%s\n\nCommands:\n", about)
	} else {
		fmt.Fprintf(w, "Usage: tarishi %s <command> [flags]\n\n%s.\n\nCommands:\n", group, groups[group])
	}

	// In the list of all, the commands of a group are one line.
	seen := map[string]bool{}
	for _, c := range all {
		first, _, nested := strings.Cut(c.name, " ")
		switch {
		case c.hidden || group != "" && first != group:
		case group != "" || !nested:
			printEntry(w, c.name, c.text)
		case !seen[first]:
			seen[first] = true
			printEntry(w, first, groups[first]+": "+strings.Join(members(all, first), ", ")+".")
		}
	}
	fmt.Fprintf(w, "\nRun 'tarishi <command> --help' for the flags of a command.\n")
}

// members returns the names of a group's commands without the group's.
func members(all []command, group string) []string {
	var names []string
	for _, c := range all {
		if name, ok := strings.CutPrefix(c.name, group+" "); ok && !c.hidden {
			names = append(names, name)
		}
	}
	return names
}

// printHelp prints what a command does and takes.
func (c *command) printHelp(w io.Writer) {
	fmt.Fprintf(w, "Usage: tarishi %s", c.name)
	for _, p := range c.parameters {
		if p.Positional {
			fmt.Fprint(w, " "+argument(p))
		}
	}
	fmt.Fprintf(w, " [flags]\n\n%s\n", c.text)

	// Arguments are few and come first, flags are many.
	heading := "\nArguments:\n"
	for _, p := range c.parameters {
		if p.Positional {
			fmt.Fprint(w, heading)
			printEntry(w, argument(p), p.Text)
			heading = ""
		}
	}
	fmt.Fprint(w, "\nFlags:\n")
	printEntry(w, "-h, --help", "Show this help.")
	for _, p := range c.parameters {
		if !p.Positional && p.Preset == "" {
			printEntry(w, flagForm(p), p.Text)
		}
	}
}

// argument returns an argument as usage has it.
func argument(p control.Parameter) string {
	text := "<" + strings.ToLower(p.Kind.Placeholder) + ">"
	if p.Several {
		text += " ..."
	}
	if !p.Required {
		text = "[" + text + "]"
	}
	return text
}

// flagForm returns a flag as help has it.
func flagForm(p control.Parameter) string {
	text := "    --" + p.Name
	for short, name := range shortFlags {
		if name == p.Name {
			text = "-" + short + ", --" + p.Name
		}
	}
	if p.Kind.Placeholder != "" {
		text += "=" + p.Kind.Placeholder
	}
	return text
}

// Columns of the help.
const (
	entryWidth = 24
	lineWidth  = 100
)

// printEntry prints a name and its text, folded.
func printEntry(w io.Writer, name, text string) {
	line := fmt.Sprintf("  %-*s", entryWidth-2, name)
	if len(line) > entryWidth {
		fmt.Fprintln(w, line)
		line = strings.Repeat(" ", entryWidth)
	}

	// A text that is longer than its line goes on below its beginning.
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > lineWidth {
			fmt.Fprintln(w, strings.TrimRight(line, " "))
			line = strings.Repeat(" ", entryWidth)
		}
		line += " " + word
	}
	fmt.Fprintln(w, line)
}
