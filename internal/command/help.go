package command

import (
	"fmt"
	"io"
	"strings"

	"tarishi/internal/control"
)

// PrintHelp prints the commands of a group, "" being all.
func (t *Table) PrintHelp(w io.Writer, group string) {
	if group == "" {
		fmt.Fprintf(w, "Usage: %s <command> [flags]\n\n%s\n\nCommands:\n", t.Program, t.About)
	} else {
		fmt.Fprintf(w, "Usage: %s %s <command> [flags]\n\n%s.\n\nCommands:\n", t.Program, group, t.Groups[group])
	}

	// In the list of all, the commands of a group are one line.
	seen := map[string]bool{}
	for _, c := range t.Commands {
		first, _, nested := strings.Cut(c.Name, " ")
		switch {
		case c.Hidden || group != "" && first != group:
		case group != "" || !nested:
			printEntry(w, c.Name, c.Text)
		case !seen[first]:
			seen[first] = true
			printEntry(w, first, t.Groups[first]+": "+strings.Join(t.members(first), ", ")+".")
		}
	}
	fmt.Fprintf(w, "\nRun '%s <command> --help' for the flags of a command.\n", t.Program)
}

// members returns the names of a group's commands without the group's.
func (t *Table) members(group string) []string {
	var names []string
	for _, c := range t.Commands {
		if name, ok := strings.CutPrefix(c.Name, group+" "); ok && !c.Hidden {
			names = append(names, name)
		}
	}
	return names
}

// PrintCommand prints what a command does and takes.
func (t *Table) PrintCommand(w io.Writer, c *Command) {
	fmt.Fprintf(w, "Usage: %s %s", t.Program, c.Name)
	for _, p := range c.Parameters {
		if p.Positional {
			fmt.Fprint(w, " "+argument(p))
		}
	}
	fmt.Fprintf(w, " [flags]\n\n%s\n", c.Text)

	// Arguments are few and come first, flags are many.
	heading := "\nArguments:\n"
	for _, p := range c.Parameters {
		if p.Positional {
			fmt.Fprint(w, heading)
			printEntry(w, argument(p), p.Text)
			heading = ""
		}
	}
	fmt.Fprint(w, "\nFlags:\n")
	printEntry(w, "-h, --help", "Show this help.")
	for _, p := range c.Parameters {
		if !p.Positional && p.Preset == "" {
			printEntry(w, t.flagForm(p), p.Text)
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
func (t *Table) flagForm(p control.Parameter) string {
	text := "    --" + p.Name
	for short, name := range t.Short {
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
