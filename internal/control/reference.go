package control

import (
	"fmt"
	"strings"
)

// Reference returns the parts of docs/queue-commands.md that are made of the rows,
// by the names that stand in the page's marks.
func Reference(all []Operation, shared string) map[string]string {
	return map[string]string{
		"usage":    usageTable(all),
		"commands": commandTable(all),
		shared:     sharedTable(all, shared),
		"requests": requestTable(all),
	}
}

// usageTable has a line for each command.
func usageTable(all []Operation) string {
	var b strings.Builder
	b.WriteString("```\n")
	for _, op := range all {
		fmt.Fprintf(&b, "tarishi %s -c DIR [--json]", op.Name)

		// A set that many commands have in common is named, and described once.
		shared := ""
		for _, p := range op.Parameters {
			if p.Shared != "" && !p.Positional && p.Shared != shared {
				shared = p.Shared
				fmt.Fprintf(&b, " [%s]", strings.ToUpper(shared))
			}
			if p.Shared != "" && !p.Positional || p.Preset != "" {
				continue
			}
			fmt.Fprintf(&b, " %s", p.usageForm())
		}
		b.WriteByte('\n')
	}
	b.WriteString("```\n")
	return b.String()
}

// usageForm returns a parameter as a line of usage has it.
func (p Parameter) usageForm() string {
	text := p.Kind.Placeholder
	if !p.Positional {
		text = "--" + p.Name + " " + text
	}
	if p.Several {
		text += "..."
	}
	if !p.Required {
		text = "[" + text + "]"
	}
	return text
}

// commandTable says what each command prints.
func commandTable(all []Operation) string {
	var b strings.Builder
	b.WriteString("| command | what it prints |\n|---|---|\n")
	for _, op := range all {
		short := op.Name[strings.LastIndexByte(op.Name, ' ')+1:]
		fmt.Fprintf(&b, "| `%s` | %s |\n", short, op.Prints)
	}
	return b.String()
}

// sharedTable describes a set of parameters that operations have in common, from
// the first operation that has it.
func sharedTable(all []Operation, shared string) string {
	var b strings.Builder
	b.WriteString("| flag | parameter | meaning |\n|---|---|---|\n")
	for _, op := range all {
		found := false
		for _, p := range op.Parameters {
			if p.Shared == shared {
				found = true
				fmt.Fprintf(&b, "| `--%s %s` | `%s` | %s |\n", p.Name, p.Kind.Placeholder, p.Name, p.Text)
			}
		}
		if found {
			break
		}
	}
	return b.String()
}

// requestTable says what each request is answered with.
func requestTable(all []Operation) string {
	var b strings.Builder
	b.WriteString("| request | parameters | answer |\n|---|---|---|\n")
	for _, op := range all {
		// A parameter in the path is seen there.
		var names []string
		shared := ""
		for _, p := range op.Parameters {
			switch {
			case strings.Contains(op.Path, "{"+p.Name+"}"):
			case p.Shared == "":
				names = append(names, "`"+p.Name+"`")
			case p.Shared != shared:
				shared = p.Shared
				names = append(names, "the "+shared)
			}
		}
		fmt.Fprintf(&b, "| `%s %s` | %s | %s |\n", op.Method, writtenPath(op.Path), strings.Join(names, ", "), op.Answer)
		if op.Single == "" {
			continue
		}

		// Of one message a change has nothing to say beside its status.
		answer := "204; a failure is a status"
		if op.form == object {
			answer = op.Answer
		}
		fmt.Fprintf(&b, "| `%s %s` | | %s |\n", op.Method, writtenPath(op.Single), answer)
	}
	return b.String()
}

// writtenPath returns a pattern as people write it.
func writtenPath(pattern string) string {
	return strings.NewReplacer("{", "", "}", "", "id", "ID").Replace(pattern)
}
