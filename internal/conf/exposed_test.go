package conf

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tarishi/config"
)

func TestOpenRelay(t *testing.T) {
	for _, test := range []struct {
		name string
		in   files
		want string // the start of the one complaint; "": none
	}{
		{"everybody", files{"relay_acl_allow": "# ours\n0.0.0.0/0\n"}, "config/relay_acl_allow:2: warning: 0.0.0.0/0 lets 100 % of all IPv4 clients"},
		{"everybody, IPv6", files{"relay_acl_allow": "::/0"}, "config/relay_acl_allow:1: warning: ::/0 lets 100 % of all IPv6 clients"},
		{"a length that was forgotten", files{"relay_acl_allow": "10.0.0.0/0"}, `config/relay_acl_allow:1: "10.0.0.0/0" is every address there is: write 10.0.0.0/32`},
		{"the same, IPv6", files{"relay_acl_allow": "2001:db8::1/0"}, `config/relay_acl_allow:1: "2001:db8::1/0" is every address there is: write 2001:db8::1/128`},
		{"one half", files{"relay_acl_allow": "128.0.0.0/1"}, "config/relay_acl_allow:1: warning: 128.0.0.0/1 lets 50 % of all IPv4 clients"},
		{"all of IPv6 in use", files{"relay_acl_allow": "2000::/3"}, "config/relay_acl_allow:1: warning: 2000::/3 lets 12.5 % of all IPv6 clients"},
		{"many that are small enough", files{"relay_acl_allow": "11.0.0.0/8\n12.0.0.0/8"}, "config/relay_acl_allow:2: warning: 12.0.0.0/8 and the lines before it let 0.781 % of all IPv4 clients"},
		{"the same one often", files{"relay_acl_allow": "11.0.0.0/8\n11.0.0.0/8\n11.1.0.0/16\n11.0.0.0/8"}, ""},
		{"private networks", files{"relay_acl_allow": "10.0.0.0/8\n172.16.0.0/12\n192.168.0.0/16\n127.0.0.0/8\nfc00::/7\n::1\n203.0.113.0/24\n2001:db8::/32"}, ""},
		{"a form that no client has", files{"relay_acl_allow": "::ffff:10.0.0.0/104"}, "config/relay_acl_allow:1: warning: ::ffff:10.0.0.0/104 matches no client: write the IPv4 network"},
		{"an address in that form", files{"relay_acl_allow": "::ffff:10.0.0.1"}, ""},
		{"every domain is ours", files{"host_list_regex": "(.+\\.)?example\\.com\n.*"}, `config/host_list_regex:2: warning: ".*" matches every domain`},
		{"every domain with a dot", files{"host_list_regex": "[a-z0-9.-]+\\.[a-z]{2,}"}, `config/host_list_regex:1: warning: "[a-z0-9.-]+\.[a-z]{2,}" matches every domain`},
		{"a whole TLD", files{"host_list_regex": ".*\\.test"}, ""},
		{"not in force", files{"relay_acl_allow": "0.0.0.0/0", "relay.ini": "[relay]\nacl=false"}, ""},
		{"all", files{"relay.ini": "[relay]\nall=true"}, "config/relay.ini:2: warning: [relay] key all: every client may send mail to anywhere"},
	} {
		_, texts := load(t, test.in)
		if test.want == "" && len(texts) > 0 || test.want != "" && (len(texts) != 1 || !strings.HasPrefix(texts[0], test.want)) {
			t.Errorf("%s: %q, want %s", test.name, texts, test.want)
		}
	}
	// Two halves: the second line makes a whole of the first.
	if _, texts := load(t, files{"relay_acl_allow": "0.0.0.0/1\n128.0.0.0/1"}); len(texts) != 2 || !strings.Contains(texts[1], "let 100 % of all IPv4 clients") {
		t.Error(texts)
	}
}

func TestOwnName(t *testing.T) {
	for me, want := range map[string]string{
		"mx.example.com": "", "vm": "config/me:1: warning: vm is no full name.", "vm.": "config/me:1: warning: vm. is no full name.",
		"\n": "config/me: warning: is empty: this host calls itself ", "# none\n": "config/me: warning: is empty: ",
	} {
		_, texts := load(t, files{"me": me})
		if want == "" && len(texts) > 0 || want != "" && (len(texts) != 1 || !strings.HasPrefix(texts[0], want)) {
			t.Errorf("%q: %q", me, texts)
		}
	}
}

// TestReadableSecrets: keys and passwords that every user of the host can read are
// warned of, unless a folder above keeps them out.
func TestReadableSecrets(t *testing.T) {
	in := files{
		"auth_flat_file.ini": "[users]\na=b", "smtp_forward.ini": "host=a\n[b.example]\nhost=tls://b\nauth_type=plain\nauth_user=u\nauth_pass=p\ntls_verify=true",
		"outbound.ini": "[example.com]\nhost=a\nauth_user=u\nauth_pass=p", "tls.ini": "key=k.pem\ncert=c.pem", "k.pem": "", "c.pem": "",
	}
	dir := instance(t, in)
	complaints := func() (all []string) {
		_, problems := Load(dir, own())
		for _, p := range problems {
			if !p.Warning || !strings.Contains(p.Text, "every user of this host can read") {
				t.Error(p)
			}
			all = append(all, p.File)
		}
		return all
	}
	if all := complaints(); len(all) > 0 {
		t.Error("readable for nobody else:", all)
	}
	for name := range in {
		if err := os.Chmod(filepath.Join(dir, "config", name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, open := readableByOthers(filepath.Join(dir, "config", "k.pem")); open {
		if got := strings.Join(complaints(), " "); got != "config/auth_flat_file.ini config/k.pem config/outbound.ini config/smtp_forward.ini" {
			t.Error(got)
		}
	}
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if all := complaints(); len(all) > 0 {
		t.Error("the folder keeps others out:", all)
	}
	// What holds no secret may be open.
	if _, texts := load(t, files{"outbound.ini": "port=26", "smtp_forward.ini": "host=a"}); len(texts) > 0 {
		t.Error(texts)
	}
}

// TestWritableByAll: what every user of the host can change is warned of, unless a
// folder above keeps them out.
func TestWritableByAll(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Init(dir, config.FS, own()); err != nil {
		t.Fatal(err)
	}
	open := func(name string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	complaints := func() (texts []string) {
		_, problems := Load(dir, own())
		for _, p := range problems {
			if strings.Contains(p.Text, "can change it") {
				texts = append(texts, p.File)
			}
		}
		return texts
	}
	for name, mode := range map[string]os.FileMode{"config/plugins": 0o666, "config/smtp.ini": 0o602, "config/tls.ini": 0o664, "config": 0o777, "queue": 0o733} {
		open(name, mode)
	}
	for path := dir; path != filepath.Dir(os.TempDir()); path = filepath.Dir(path) {
		if info, err := os.Stat(path); err != nil || info.Mode()&0o001 == 0 && os.Chmod(path, 0o755) != nil {
			t.Skip("others cannot come to ", path)
		}
	}
	if got, want := complaints(), []string{"config", "config/plugins", "config/smtp.ini", "queue"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	open(".", 0o700)
	if got := complaints(); len(got) > 0 {
		t.Errorf("%q, in a folder that is closed", got)
	}
}

func TestInitIsPrivate(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Init(dir, config.FS, own()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"auth_flat_file.ini", "smtp_forward.ini", "outbound.ini"} {
		if info, err := os.Stat(filepath.Join(dir, "config", name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// TestKeyForTheDaemon: what the daemon's user can read is a matter of owner, group,
// others, and the folders above.
func TestKeyForTheDaemon(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "k.pem")
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	me := &account{uid: uint32(os.Geteuid())}
	stranger := &account{uid: me.uid + 12345}
	info, err := os.Stat(key)
	if err != nil {
		t.Fatal(err)
	}
	grouped := &account{uid: stranger.uid, gids: []uint32{info.Sys().(*syscall.Stat_t).Gid}}
	for _, tt := range []struct {
		who          *account
		mode, folder os.FileMode
		want         bool
	}{
		{me, 0o400, 0o700, true},
		{stranger, 0o600, 0o755, false},
		{stranger, 0o640, 0o755, false},
		{stranger, 0o604, 0o750, false},
		{grouped, 0o600, 0o755, false},
		{grouped, 0o640, 0o700, false},
	} {
		if err := os.Chmod(key, tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, tt.folder); err != nil {
			t.Fatal(err)
		}
		if got := tt.who.reads(key); got != tt.want {
			t.Errorf("%+v: mode %o in %o: %v", tt.who, tt.mode, tt.folder, got)
		}
	}
}

// TestHiddenFromTheDaemon: what root reads at the start, and in check, the daemon's
// user must be able to read at a reload.
func TestHiddenFromTheDaemon(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and a user nobody")
	}
	dir := instance(t, files{"tls.ini": "key=k.pem\ncert=c.pem", "k.pem": "", "c.pem": "", "host_list": "a.example\n", "outbound.ini": ""})
	uid, _ := strconv.Atoi(nobody.Uid)
	queue := filepath.Join(dir, "queue")
	if err := errors.Join(os.Mkdir(queue, 0o700), os.Chown(queue, uid, -1), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}

	// The others stay closed, as files with secrets are.
	config := filepath.Join(dir, "config")
	for _, name := range []string{"me", "tls.ini", "c.pem"} {
		if err := os.Chmod(filepath.Join(config, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want ...string) {
		t.Helper()
		_, problems := Load(dir, own())
		var texts []string
		for _, p := range problems {
			texts = append(texts, strings.Replace(p.String(), "warning: user nobody, as whom the daemon runs, ", "", 1))
		}
		if !slices.Equal(texts, want) {
			t.Errorf("%q, want %q", texts, want)
		}
	}
	const (
		hidden = "cannot read it: only a start by root can, and a reload is refused"
		key    = "config/k.pem: cannot read this private key: only a start by root can, and a renewed one is not noticed"
	)
	expect("config/host_list: "+hidden, key, "config/outbound.ini: "+hidden)

	// A closed folder is one complaint.
	if err := os.Chmod(config, 0o700); err != nil {
		t.Fatal(err)
	}
	expect("config: "+hidden, key)
}

// TestNoSecretsInComplaints: a broken line may hold a password, wherever the
// mistake in it is.
func TestNoSecretsInComplaints(t *testing.T) {
	const password = "hunter2"
	for _, text := range []string{
		"auth_pass " + password, "auth_pass: " + password, "auth_pass:" + password, "auth_user u " + password, password, "[" + password, "=" + password,
		"auth_pass=\n" + password, "auth pass=" + password, "\"auth_pass\"=" + password, "auth_pass[]=" + password + "\nauth_pass[]=x", "auth_pass=x\nauth_pass=" + password,
		"host=u:" + password + "@h", "host=smtp://u:" + password + "@h", "host=http://u:" + password + "@h:x", "auth_type=plain\nauth_pass=" + password,
		"auth_user=u\nauth_user=" + password, "auth_pass=\\\n" + password + " \\\n",
	} {
		for _, name := range []string{"smtp_forward.ini", "outbound.ini", "auth_flat_file.ini"} {
			for _, section := range []string{"", "[b.example]\nhost=a\n", "[users]\n", "[core]\n"} {
				_, texts := load(t, files{name: section + text + "\n"})
				if all := strings.Join(texts, "\n"); strings.Contains(all, password) {
					t.Errorf("%s: %q: %s", name, section+text, all)
				}
			}
		}
	}
}
