package main

import (
	"fmt"
	"strings"

	"tarishi/internal/command"
	"tarishi/internal/ini/manual"
	"tarishi/internal/server"
)

// printSettings prints the settings with filter in their names, one a line, with
// tabs between: the name as FILE:SECTION:KEY, the default, the values if they are
// few, the meaning. A shell completes the names of settings from it.
func printSettings(s command.Streams, filter string) error {
	for _, one := range manual.Settings(server.Tables()) {
		name := strings.Join([]string{one.File, one.Section, one.Key}, ":")
		if strings.Contains(name, filter) {
			fmt.Fprintf(s.Out, "%s\t%s\t%s\t%s\n", name, one.Default, strings.Join(one.Values, "|"), one.Doc)
		}
	}
	return nil
}

// settingNames returns the names of all settings, as printSettings prints them.
func settingNames() []command.Word {
	var names []command.Word
	for _, one := range manual.Settings(server.Tables()) {
		names = append(names, command.Word{Name: strings.Join([]string{one.File, one.Section, one.Key}, ":"), Text: one.Doc})
	}
	return names
}
