package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/load/instance"
)

// publicDir is a temporary folder that other users may enter, unlike those of
// t.TempDir: the servers below change to users of their own. Its path is short
// enough for Unix sockets, so it is not in TMPDIR.
func publicDir(t *testing.T, owner string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if owner != "" {
		chown(t, dir, owner)
	}
	return dir
}

func chown(t *testing.T, path, owner string) {
	t.Helper()
	u, err := user.Lookup(owner)
	if err != nil {
		missing(t, err.Error())
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
}

// run starts a server that stays in the foreground and ends with the test.
func run(t *testing.T, cmd *exec.Cmd) *instance.Process {
	t.Helper()
	p, err := instance.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		p.Stop(ctx) // how it ends is its own affair
		if log := p.Log(); t.Failed() {
			t.Logf("%s's log ends with:\n%s", cmd.Path, log[max(0, len(log)-5000):])
		}
	})
	return p
}

// listens waits until something listens at address.
func listens(t *testing.T, p *instance.Process, network, address string) {
	t.Helper()
	eventually(t, address, func() bool {
		select {
		case <-p.Exited():
			t.Fatalf("it ended: %s", p.Log())
		default:
		}
		c, err := net.DialTimeout(network, address, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "the server is only started by root")
	}
}

// dovecot is a Dovecot of its own: SASL for Postfix and, with mailboxes, LMTP.
type dovecot struct {
	*instance.Process
	dir      string
	sasl     string // socket
	lmtp     string // socket
	lmtpPort int
}

// startDovecot starts it with the users given, by name with their passwords.
// The mailbox of the user "broken" cannot be written.
func startDovecot(t *testing.T, users map[string]string) *dovecot {
	t.Helper()
	need(t, "dovecot")
	asRoot(t)
	if _, err := os.Stat("/usr/lib/dovecot/lmtp"); err != nil {
		missing(t, "dovecot-lmtpd is not installed")
	}
	dir := publicDir(t, "")
	d := &dovecot{dir: dir, sasl: dir + "/sasl", lmtp: dir + "/lmtp", lmtpPort: freePort(t)}
	var list strings.Builder
	for _, name := range slices.Sorted(maps.Keys(users)) {
		extra := ""
		if name == "broken" {
			extra = "userdb_mail=maildir:/proc/no/mailbox"
		}
		fmt.Fprintf(&list, "%s:{PLAIN}%s::::::%s\n", name, users[name], extra)
	}
	mail := dir + "/mail"
	if err := os.Mkdir(mail, 0o755); err != nil {
		t.Fatal(err)
	}
	chown(t, mail, "dovecot")
	config := strings.ReplaceAll(`base_dir = DIR/run
state_dir = DIR/state
log_path = /dev/stderr
protocols = lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5
auth_username_format = %n
passdb {
  driver = passwd-file
  args = username_format=%n DIR/users
}
userdb {
  driver = passwd-file
  args = username_format=%n DIR/users
  default_fields = uid=dovecot gid=dovecot home=DIR/mail/%n
}
first_valid_uid = 1
mail_location = maildir:DIR/mail/%n
mail_save_crlf = yes
mmap_disable = yes
service auth {
  unix_listener DIR/sasl {
    mode = 0666
  }
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = PORT
  }
  unix_listener DIR/lmtp {
    mode = 0666
  }
}
protocol lmtp {
  info_log_path = DIR/info
}
`, "DIR", dir)
	writeFile(t, dir+"/dovecot.conf", strings.ReplaceAll(config, "PORT", strconv.Itoa(d.lmtpPort)))
	writeFile(t, dir+"/users", list.String())
	d.Process = run(t, exec.Command("dovecot", "-F", "-c", dir+"/dovecot.conf"))
	listens(t, d.Process, "unix", d.sasl)
	listens(t, d.Process, "unix", d.lmtp)
	return d
}

// mailbox returns the messages that a user has got.
func (d *dovecot) mailbox(t *testing.T, name string) []string {
	t.Helper()
	files, _ := filepath.Glob(d.dir + "/mail/" + name + "/new/*")
	var all []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	return all
}

// exim is an Exim of its own that relays everything to one port on loopback. It
// knows the user "u" with the password "p".
type exim struct {
	*instance.Process
	dir  string
	port int
}

func startExim(t *testing.T, relayPort int) *exim {
	t.Helper()
	need(t, "exim4")
	asRoot(t)
	path, err := exec.LookPath("exim4")
	if err != nil {
		t.Fatal(err)
	}
	const owner = "Debian-exim"
	dir := publicDir(t, owner)
	e := &exim{dir: dir, port: freePort(t)}
	for _, sub := range []string{"spool", "log"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
		chown(t, filepath.Join(dir, sub), owner)
	}
	cert, key := certificate(t)
	for name, text := range map[string]string{"cert.pem": cert, "key.pem": key} {
		writeFile(t, filepath.Join(dir, name), text)
	}
	config := `exim_path = EXIM
keep_environment =
primary_hostname = exim.test
spool_directory = DIR/spool
log_file_path = DIR/log/%slog
log_selector = +tls_cipher +pipelining +smtp_connection +received_recipients +8bitmime
daemon_smtp_ports = PORT
local_interfaces = 127.0.0.1
tls_advertise_hosts = *
tls_certificate = DIR/cert.pem
tls_privatekey = DIR/key.pem
chunking_advertise_hosts = *
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
pipelining_advertise_hosts = *
auth_advertise_hosts = *
host_lookup =
rfc1413_hosts =
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
begin acl
rcpt:
  deny local_parts = refused
    message = nobody has that name here
  accept
begin routers
out:
  driver = manualroute
  transport = out
  route_list = * 127.0.0.1
  self = send
begin transports
out:
  driver = smtp
  port = RELAY
  allow_localhost
  hosts_try_fastopen =
  hosts_avoid_tls = *
begin retry
* * F,1h,1m
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{u}}{eq{$auth3}{p}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = <| Username: | Password:
  server_condition = ${if and{{eq{$auth1}{u}}{eq{$auth2}{p}}}}
  server_set_id = $auth1
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${if eq{$auth1}{u}{p}fail}
  server_set_id = $auth1
`
	config = strings.NewReplacer("EXIM", path, "DIR", dir, "PORT", strconv.Itoa(e.port), "RELAY", strconv.Itoa(relayPort)).Replace(config)
	writeFile(t, filepath.Join(dir, "conf"), config)
	e.Process = run(t, exec.Command(path, "-C", filepath.Join(dir, "conf"), "-bdf", "-q1m", "-oP", filepath.Join(dir, "pid")))
	listens(t, e.Process, "tcp", fmt.Sprintf("127.0.0.1:%d", e.port))
	return e
}

// log is what Exim has written about mail.
func (e *exim) log() string {
	text, _ := os.ReadFile(filepath.Join(e.dir, "log", "mainlog"))
	return string(text)
}
