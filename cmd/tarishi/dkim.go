package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"tarishi/internal/command"
	"tarishi/internal/control"
	"tarishi/internal/dkim"
	"tarishi/internal/dns"
	"tarishi/internal/mail"
)

// keyFolder is where the plugin dkim finds its keys, below config/.
const keyFolder = "dkim"

// keyCommands make and check keys for signatures.
func keyCommands() []command.Command {
	domain := control.Parameter{Name: "domain", Kind: control.Kind{Placeholder: "DOMAIN"}, Positional: true, Required: true, Text: "The domain that signs."}
	return []command.Command{
		{
			Name: "dkim new", Text: "Make a key in config/dkim/DOMAIN and print the DNS record that belongs to it.", Run: newKey,
			Parameters: []control.Parameter{
				domain, configsFlag,
				{Name: "kind", Kind: control.Kind{Placeholder: "rsa|ed25519"}, Text: "The kind of key: rsa (the default), which everybody understands, or ed25519."},
				{Name: "selector", Kind: control.Kind{Placeholder: "NAME"}, Text: "The name of the key in the DNS. Without it, one of the month."},
			},
		},
		{
			Name: "dkim check", Text: "Compare the keys in config/dkim/DOMAIN with what the DNS has.", Run: checkKeys,
			Parameters: []control.Parameter{domain, configsFlag},
		},
	}
}

var errDomain = errors.New("no domain name")

// signingDomain returns the domain that a command is about, as its folder is called.
func signingDomain(a control.Arguments) (string, error) {
	domain := mail.CanonicalDomain(a.Text("domain"))
	if !mail.IsHostName(domain) || !strings.Contains(domain, ".") {
		return "", fmt.Errorf("%q: %w", a.Text("domain"), errDomain)
	}
	return domain, nil
}

// newKey makes a key. It never writes over a file.
func newKey(s command.Streams, a control.Arguments) error {
	dir, err := instanceOf(a).find(os.Getenv(instanceVariable), hasConfig)
	if err != nil {
		return err
	}
	domain, err := signingDomain(a)
	if err != nil {
		return err
	}
	// A new selector each time: mail signed with the old key is still on its way.
	kind, selector := a.Text("kind"), a.Text("selector")
	if kind == "" {
		kind = "rsa"
	}
	if selector == "" {
		selector = strings.ToLower(time.Now().UTC().Format("Jan2006"))
		if kind != "rsa" {
			selector += "-" + kind
		}
	}
	if err := dkim.CheckSelector(selector); err != nil {
		return err
	}

	// The first key of a domain is in its folder, a further one in a folder below.
	config := filepath.Join(dir, "config")
	keys, _ := dkim.LoadKeys(os.DirFS(config), keyFolder)
	if slices.ContainsFunc(keys[domain], func(k dkim.Key) bool { return k.Selector == selector }) {
		return fmt.Errorf("%s has a key with the selector %s already: give another one with --selector", domain, selector)
	}
	place := filepath.Join(config, keyFolder, domain)
	if _, err := os.Stat(filepath.Join(place, "selector")); err == nil {
		place = filepath.Join(place, selector)
	}
	// The record goes to standard output alone, ready for a zone file.
	private, err := dkim.NewKey(kind)
	if err != nil {
		return err
	}
	k := dkim.Key{Selector: selector, Private: private}
	if err := writeKey(config, place, k); err != nil {
		return err
	}
	line, err := k.ZoneLine(domain)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Err, "wrote %s\nPut this record into the DNS: 'tarishi dkim check %s' says when it is there. A running daemon that signs uses the key at once:\n", place, domain)
	fmt.Fprintln(s.Out, line)
	return nil
}

// writeKey writes the files of a key, for the owner of the configuration alone.
func writeKey(config, place string, k dkim.Key) error {
	text, err := dkim.FormatKey(k.Private)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(place, 0o750); err != nil {
		return err
	}
	made := []string{filepath.Join(config, keyFolder), filepath.Dir(place), place}
	for _, one := range []struct {
		name string
		text []byte
		mode fs.FileMode
	}{{"private", text, 0o600}, {"selector", []byte(k.Selector + "\n"), 0o644}} {
		name := filepath.Join(place, one.name)
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, one.mode)
		if err != nil {
			return err
		}
		_, err = f.Write(one.text)
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return errors.Join(err, os.Remove(name))
		}
		made = append(made, name)
	}
	return giveTo(config, made)
}

// giveTo makes the owner of a folder that of files, where root has made them: the daemon
// reads them with its own rights.
func giveTo(folder string, files []string) error {
	// Only root can, and only root needs to.
	info, err := os.Stat(folder)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	for _, name := range files {
		if err := os.Chown(name, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// checkKeys looks up the records of a domain's keys.
func checkKeys(s command.Streams, a control.Arguments) error {
	cfg, _, err := instanceOf(a).load()
	if err != nil {
		return err
	}
	domain, err := signingDomain(a)
	if err != nil {
		return err
	}
	resolver, err := dns.New(cfg.DNS)
	if err != nil {
		return err
	}
	// Keys that the daemon cannot use are reported as it would.
	all, faults := dkim.LoadKeys(os.DirFS(cfg.ConfigDir), keyFolder)
	for _, fault := range faults {
		if strings.Contains(fault.Error(), domain+"/") {
			fmt.Fprintln(s.Err, fault)
			err = errReported
		}
	}
	if len(all[domain]) == 0 && err == nil {
		return fmt.Errorf("%s has no key in config/%s ('tarishi dkim new %s' makes one)", domain, keyFolder, domain)
	}

	// A signature without its record is worse than none: receivers may refuse the mail.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	for _, k := range all[domain] {
		lookup := k.CheckRecord(ctx, resolver, domain)
		if lookup == nil {
			fmt.Fprintf(s.Out, "%s: right\n", k.Name(domain))
			continue
		}
		err = errReported
		fmt.Fprintf(s.Out, "%s: %v\n", k.Name(domain), lookup)
		if line, wrong := k.ZoneLine(domain); wrong == nil {
			fmt.Fprintf(s.Out, "  it should be: %s\n", line)
		}
	}
	return err
}
