package conf

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
)

// masked stands for a secret.
const masked = "********"

// Print writes the effective configuration in the form of its files, each under
// a line "; config/NAME". Secrets are masked. Written back to files, it gives
// the same Config, but for the secrets and for a text that ends in a backslash,
// which only an old flat file can hold.
func (c *Config) Print(w io.Writer) {
	b := bufio.NewWriter(w)
	defer b.Flush()
	printList(b, "me", []string{c.Me})
	printList(b, "queue_dir", []string{c.QueueDir})
	var names []string
	for _, p := range c.Plugins {
		names = append(names, p.Name)
	}
	printList(b, "plugins", names)
	printList(b, "plugin_timeout", []string{formatDuration(c.PluginTimeout)})
	for _, name := range sortedKeys(c.PluginTimeouts) {
		printList(b, name+".timeout", []string{formatDuration(c.PluginTimeouts[name])})
	}
	for _, s := range schemas(c) {
		printFile(b, s.file)
		printEntries(b, "main", s.entries)
		switch s.file {
		case "tls.ini":
			if len(c.TLS.NoTLSHosts) > 0 {
				fmt.Fprintln(b, "\n[no_tls_hosts]")
				for _, p := range prefixStrings(c.TLS.NoTLSHosts) {
					fmt.Fprintln(b, p)
				}
			}
			printHosts(b, "mutual_auth_hosts", c.TLS.Outbound.ShowTo)
			printHosts(b, "mutual_auth_hosts_exclude", c.TLS.Outbound.HideFrom)
		case outboundFile:
			c.printDestinations(b)
		case "auth_flat_file.ini":
			fmt.Fprintln(b, "\n[users]")
			for _, user := range sortedKeys(c.AuthFlatFile.Users) {
				fmt.Fprintln(b, user+"="+masked)
			}
		}
	}
	c.printForward(b)
	printList(b, "host_list", c.HostList)
	printList(b, "host_list_regex", c.HostListRegex)
	antiSpoof := "0"
	if c.HostListAntiSpoof {
		antiSpoof = "1"
	}
	printList(b, "host_list.anti_spoof", []string{antiSpoof})
	printList(b, "relay_acl_allow", prefixStrings(c.Relay.Allow))
	for _, t := range []struct {
		name  string
		lines []string
	}{
		{"outbound.bounce_message", c.BounceMessage},
		{"outbound.bounce_message_html", c.BounceMessageHTML},
		{"outbound.bounce_message_image", c.BounceMessageImage},
	} {
		if t.lines != nil {
			printFile(b, t.name)
			for _, line := range t.lines {
				fmt.Fprintln(b, line)
			}
		}
	}
}

// printHosts writes a section whose keys are hosts.
func printHosts(b *bufio.Writer, section string, hosts []string) {
	if len(hosts) == 0 {
		return
	}
	fmt.Fprintf(b, "\n[%s]\n", section)
	for _, h := range hosts {
		fmt.Fprintln(b, h)
	}
}

func (c *Config) printForward(b *bufio.Writer) {
	printFile(b, forwardFile)
	main := c.Forward.Main
	printEntries(b, "main", mainEntries(&c.Forward))
	printRoute(b, "main", &main)
	for _, name := range sortedKeys(c.Forward.Routes) {
		fmt.Fprintf(b, "\n[%s]\n", name)
		printRoute(b, name, c.Forward.Routes[name])
	}
	printEntries(b, "main", forwardTLSEntries(&c.Forward))
}

func printRoute(b *bufio.Writer, section string, r *ForwardRoute) {
	var hosts []string
	for _, h := range r.Hosts {
		switch {
		case h.Path != "":
			hosts = append(hosts, "lmtp+unix:"+h.Path)
		case h.Protocol.String() == "LMTP":
			hosts = append(hosts, "lmtp://"+h.String())
		case h.ImplicitTLS:
			hosts = append(hosts, "tls://"+h.String())
		default:
			hosts = append(hosts, h.String())
		}
	}
	h := hostKeys{host: strings.Join(hosts, " ")}
	if r.InTurn {
		h.host, h.pool = "", h.host
	}
	entries := slices.DeleteFunc(routeEntries(r, &h), func(e entry) bool {
		return e.key == "port" || e.key == "using_lmtp" || e.key == "tls_verify" && r.RejectUnauthorized // which stands in tls.ini
	})
	for i := range entries {
		entries[i].section = section
	}
	printKeys(b, section, entries)
}

func printFile(b *bufio.Writer, name string) { fmt.Fprintf(b, "\n; %s\n", place(name)) }

// printList writes a list file, if there is anything in it.
func printList(b *bufio.Writer, name string, lines []string) {
	if len(lines) == 0 {
		return
	}
	printFile(b, name)
	for _, line := range lines {
		fmt.Fprintln(b, line)
	}
}

// printEntries writes the keys of every section, first's without a header.
func printEntries(b *bufio.Writer, first string, entries []entry) {
	var sections []string
	for _, e := range entries {
		if name := e.sectionName(); !slices.Contains(sections, name) && e.active() {
			sections = append(sections, name)
		}
	}
	for _, section := range sections {
		if section != first {
			fmt.Fprintf(b, "\n[%s]\n", section)
		}
		printKeys(b, section, entries)
	}
}

// printKeys writes the keys of one section. What is empty is left out: reading
// nothing gives the same.
func printKeys(b *bufio.Writer, section string, entries []entry) {
	for _, e := range entries {
		if e.sectionName() != section || !e.active() || e.hidden {
			continue
		}
		key := e.key
		if e.field.list {
			key += "[]"
		}
		for _, value := range e.field.text() {
			if value == "" {
				continue
			}
			if e.field.secret {
				value = masked
			}
			fmt.Fprintln(b, key+"="+value)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
