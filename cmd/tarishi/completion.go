package main

import (
	"bufio"
	_ "embed" // scripts
	"fmt"
	"io"
	"slices"
	"strings"

	"tarishi/internal/control"
	"tarishi/internal/ini/manual"
	"tarishi/internal/server"
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

func completionCommand() command {
	which := control.Parameter{Name: "shell", Kind: control.Kind{Placeholder: "SHELL"}, Positional: true, Required: true}
	for _, s := range shells {
		which.Kind.Values = append(which.Kind.Values, s.name)
	}
	which.Text = strings.Join(which.Kind.Values, ", ") + ": the first lines of the script say how it is loaded."
	return command{
		name: "completion", text: "Print a script with which a shell completes commands, flags and the names of settings.",
		parameters: []control.Parameter{which}, run: printCompletion,
	}
}

// printCompletion prints the script of a shell.
func printCompletion(s streams, a control.Arguments) error {
	for _, shell := range shells {
		if shell.name == a.Text("shell") {
			out := bufio.NewWriter(s.out)
			before, behind, _ := strings.Cut(shell.script, "@ROWS@\n")
			out.WriteString(before)
			shell.print(out, choices(commands()))
			out.WriteString(behind)
			return out.Flush()
		}
	}
	return fmt.Errorf("%w: there is no completion for %s", control.ErrInvalid, a.Text("shell"))
}

// choice is what may stand behind the words of a command line that are there.
type choice struct {
	behind string // "": behind tarishi; "queue", "queue list"
	flag   string // what is behind this flag; "": behind the words
	short  string // the flag's other name
	words  []word
	flags  []word
	folder bool // the name of a folder
}

// word is one of several choices. Its text is one sentence.
type word struct{ name, text string }

// choices returns the rows of the scripts: first those of words, then for each of them
// those of its flags that take a value.
func choices(all []command) []choice {
	top := choice{words: []word{}}
	var rows []choice
	for _, c := range all {
		if c.hidden {
			continue
		}

		// A group is one word, and its commands are the words behind it.
		first, member, nested := strings.Cut(c.name, " ")
		if !nested {
			top.words = append(top.words, word{name: c.name, text: c.text})
		} else {
			i := slices.IndexFunc(rows, func(r choice) bool { return r.behind == first && r.flag == "" })
			if i < 0 {
				top.words = append(top.words, word{name: first, text: groups[first] + "."})
				i, rows = len(rows), append(rows, choice{behind: first, flags: []word{helpWord}})
			}
			rows[i].words = append(rows[i].words, word{name: member, text: c.text})
		}

		// The line of the default command may begin with its flags.
		more := choicesOf(c)
		rows = append(rows, more...)
		if c.name == defaultCommand {
			top.flags = more[0].flags
			for _, r := range more[1:] {
				r.behind = ""
				rows = append(rows, r)
			}
		}
	}
	return append([]choice{top}, rows...)
}

var helpWord = word{name: "--" + helpFlag, text: "Show this help."}

// choicesOf returns the row of one command and those of its flags.
func choicesOf(c command) []choice {
	rows := []choice{{behind: c.name, flags: []word{helpWord}}}
	for _, p := range c.parameters {
		values := choice{behind: c.name, folder: p.Kind.Placeholder == "DIR"}
		for _, v := range p.Kind.Values {
			values.words = append(values.words, word{name: v})
		}
		if c.name == "settings" {
			values.words = settingNames()
		}

		// Switches have no value, and presets no flag.
		switch {
		case p.Positional:
			rows[0].words, rows[0].folder = values.words, values.folder
			continue
		case p.Preset != "":
			continue
		}
		rows[0].flags = append(rows[0].flags, word{name: "--" + p.Name, text: p.Text})
		if p.Kind.Placeholder == "" {
			continue
		}
		values.flag = "--" + p.Name
		for short, name := range shortFlags {
			if name == p.Name {
				values.short = "-" + short
			}
		}
		rows = append(rows, values)
	}
	return rows
}

// settingNames returns the names of all settings, as 'tarishi settings' prints them.
func settingNames() []word {
	var names []word
	for _, one := range manual.Settings(server.Tables()) {
		names = append(names, word{name: strings.Join([]string{one.File, one.Section, one.Key}, ":"), text: one.Doc})
	}
	return names
}

// quote returns a text as the shells take it literally.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// eachCase prints the branches of a case that bash and zsh have: for the words behind
// something, with "-" appended for its flags, or with a flag for the values of that.
func eachCase(w io.Writer, all []choice, print func(words []word, folder bool)) {
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
	eachCase(w, all, func(words []word, folder bool) {
		var names []string
		for _, one := range words {
			names = append(names, one.name)
		}
		if folder {
			names = []string{"/"}
		}
		fmt.Fprintf(w, "echo %s ;;\n", quote(strings.Join(names, " ")))
	})
}

func printZsh(w io.Writer, all []choice) {
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`)
	eachCase(w, all, func(words []word, folder bool) {
		fmt.Fprint(w, "entries=(")
		for i, one := range words {
			if i > 0 {
				fmt.Fprint(w, " ")
			}
			entry := escape.Replace(one.name)
			if one.text != "" {
				entry += ":" + one.text
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
			fmt.Fprintf(w, "%s -a %s%s\n", at, fishQuote(fishQuote(one.name)), fishText(one.text))
		}
		if c.folder {
			fmt.Fprintf(w, "%s -a '(__fish_complete_directories)'\n", at)
		}

		// A flag without a row of its own takes no value.
		for _, flag := range c.flags {
			fmt.Fprintf(w, "%s -l %s%s%s\n", at, strings.TrimPrefix(flag.name, "--"), fishValues(all, c.behind, flag.name), fishText(flag.text))
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
		names = append(names, one.name)
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
