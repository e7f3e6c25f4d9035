package command

import (
	"bufio"
	_ "embed" // scripts
	"fmt"
	"io"
	"slices"
	"strings"

	"tarishi/internal/control"
)

//go:embed completion.bash
var bashScript string

//go:embed completion.zsh
var zshScript string

//go:embed completion.fish
var fishScript string

// shell is one that completes. In its script the line @ROWS@ stands for what is printed
// of the choices.
type shell struct {
	name, script string
	print        func(w io.Writer, all []choice)
}

var shells = []shell{
	{name: "bash", script: bashScript, print: printBash},
	{name: "zsh", script: zshScript, print: printZsh},
	{name: "fish", script: fishScript, print: printFish},
}

// Shells returns the names of the shells that PrintCompletion knows.
func Shells() []string {
	var names []string
	for _, s := range shells {
		names = append(names, s.name)
	}
	return names
}

// PrintCompletion prints the script with which a shell completes lines. An error for an
// unknown one wraps control.ErrInvalid.
func (t *Table) PrintCompletion(w io.Writer, name string) error {
	for _, shell := range shells {
		if shell.name == name {
			out := bufio.NewWriter(w)
			before, behind, _ := strings.Cut(shell.script, "@ROWS@\n")
			out.WriteString(before)
			shell.print(out, t.choices())
			out.WriteString(behind)
			return out.Flush()
		}
	}
	return fmt.Errorf("%w: there is no completion for %s", control.ErrInvalid, name)
}

// choice is what may stand behind the words of a command line that are there.
type choice struct {
	behind string // "": behind tarishi; "queue", "queue list"
	flag   string // what is behind this flag; "": behind the words
	short  string // the flag's other name
	words  []Word
	flags  []Word
	folder bool // the name of a folder
}

// Word is one of several choices. Its Text is one sentence.
type Word struct{ Name, Text string }

// choices returns the rows of the scripts: first those of words, then for each of them
// those of its flags that take a value.
func (t *Table) choices() []choice {
	top := choice{words: []Word{}}
	var rows []choice
	for _, c := range t.Commands {
		if c.Hidden {
			continue
		}

		// A group is one word, and its commands are the words behind it.
		first, member, nested := strings.Cut(c.Name, " ")
		if !nested {
			top.words = append(top.words, Word{Name: c.Name, Text: c.Text})
		} else {
			i := slices.IndexFunc(rows, func(r choice) bool { return r.behind == first && r.flag == "" })
			if i < 0 {
				top.words = append(top.words, Word{Name: first, Text: t.Groups[first] + "."})
				i, rows = len(rows), append(rows, choice{behind: first, flags: []Word{helpWord}})
			}
			rows[i].words = append(rows[i].words, Word{Name: member, Text: c.Text})
		}

		// The line of the default command may begin with its flags.
		more := t.choicesOf(c)
		rows = append(rows, more...)
		if c.Name == t.Default {
			top.flags = more[0].flags
			for _, r := range more[1:] {
				r.behind = ""
				rows = append(rows, r)
			}
		}
	}
	return append([]choice{top}, rows...)
}

var helpWord = Word{Name: "--" + Help, Text: "Show this help."}

// choicesOf returns the row of one command and those of its flags.
func (t *Table) choicesOf(c Command) []choice {
	rows := []choice{{behind: c.Name, flags: []Word{helpWord}}}
	for _, p := range c.Parameters {
		values := choice{behind: c.Name, folder: p.Kind.Placeholder == "DIR"}
		for _, v := range p.Kind.Values {
			values.words = append(values.words, Word{Name: v})
		}
		if p.Positional && c.Complete != nil {
			values.words = c.Complete()
		}

		// Switches have no value, and presets no flag.
		switch {
		case p.Positional:
			rows[0].words, rows[0].folder = values.words, values.folder
			continue
		case p.Preset != "":
			continue
		}
		rows[0].flags = append(rows[0].flags, Word{Name: "--" + p.Name, Text: p.Text})
		if p.Kind.Placeholder == "" {
			continue
		}
		values.flag = "--" + p.Name
		for short, name := range t.Short {
			if name == p.Name {
				values.short = "-" + short
			}
		}
		rows = append(rows, values)
	}
	return rows
}

// quote returns a text as the shells take it literally.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// eachCase prints the branches of a case that bash and zsh have: for the words behind
// something, with "-" appended for its flags, or with a flag for the values of that.
func eachCase(w io.Writer, all []choice, print func(words []Word, folder bool)) {
	for _, c := range all {
		key := quote(c.behind)
		switch {
		case c.flag != "" && c.short != "":
			key = quote(c.behind+" "+c.flag) + " | " + quote(c.behind+" "+c.short)
		case c.flag != "":
			key = quote(c.behind + " " + c.flag)
		}
		fmt.Fprintf(w, "\t%s) ", key)
		print(c.words, c.folder)
		if c.flag == "" {
			fmt.Fprintf(w, "\t%s) ", quote(c.behind+" -"))
			print(c.flags, false)
		}
	}
}

func printBash(w io.Writer, all []choice) {
	eachCase(w, all, func(words []Word, folder bool) {
		var names []string
		for _, one := range words {
			names = append(names, one.Name)
		}
		if folder {
			names = []string{"/"}
		}
		fmt.Fprintf(w, "echo %s ;;\n", quote(strings.Join(names, " ")))
	})
}

func printZsh(w io.Writer, all []choice) {
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`)
	eachCase(w, all, func(words []Word, folder bool) {
		fmt.Fprint(w, "entries=(")
		for i, one := range words {
			if i > 0 {
				fmt.Fprint(w, " ")
			}
			entry := escape.Replace(one.Name)
			if one.Text != "" {
				entry += ":" + one.Text
			}
			fmt.Fprint(w, quote(entry))
		}
		if folder {
			fmt.Fprint(w, "/")
		}
		fmt.Fprint(w, ") ;;\n")
	})
}

func printFish(w io.Writer, all []choice) {
	fmt.Fprint(w, "set -g __tarishi_commands")
	for _, c := range all {
		if c.flag == "" && c.behind != "" {
			fmt.Fprint(w, " "+fishQuote(c.behind))
		}
	}
	fmt.Fprintln(w)
	for _, c := range all {
		at := "complete -c tarishi -n " + fishQuote("__tarishi_at "+fishQuote(c.behind))
		if c.flag != "" {
			continue
		}
		for _, one := range c.words {
			fmt.Fprintf(w, "%s -a %s%s\n", at, fishQuote(fishQuote(one.Name)), fishText(one.Text))
		}
		if c.folder {
			fmt.Fprintf(w, "%s -a '(__fish_complete_directories)'\n", at)
		}

		// A flag without a row takes no value.
		for _, flag := range c.flags {
			fmt.Fprintf(w, "%s -l %s%s%s\n", at, strings.TrimPrefix(flag.Name, "--"), fishValues(all, c.behind, flag.Name), fishText(flag.Text))
		}
	}
}

// fishValues returns the options of complete for the values of a flag.
func fishValues(all []choice, behind, flag string) string {
	i := slices.IndexFunc(all, func(c choice) bool { return c.behind == behind && c.flag == flag })
	if i < 0 {
		return ""
	}
	options := " -x"
	if short := all[i].short; short != "" {
		options += " -s " + short[1:]
	}
	var names []string
	for _, one := range all[i].words {
		names = append(names, one.Name)
	}
	switch {
	case all[i].folder:
		options += " -a '(__fish_complete_directories)'"
	case len(names) > 0:
		options += " -a " + fishQuote(strings.Join(names, " "))
	}
	return options
}

func fishText(s string) string {
	if s == "" {
		return ""
	}
	return " -d " + fishQuote(s)
}

// fishQuote returns a text as fish takes it literally.
func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}
