package conf

import (
	"os"
	"path"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/ini/hostport"
)

// Instance is what concerns the instance as a whole.
type Instance struct {
	Me       string // this host's name in greetings and headers
	QueueDir string // DIR/queue, or what config/queue_dir says

	User, Group          string // names or numbers to change to after the addresses are bound; "": none
	GracefulShutdown     bool
	ForceShutdownTimeout time.Duration
	ShutdownReplyTimeout time.Duration // of it, for next hops to answer to whole messages
}

// names declares the flat files of an instance in dir.
func (i *Instance) names(dir string) []*ini.Table {
	text := func(p *string) func() string { return func() string { return *p } }
	return []*ini.Table{
		{
			File: "me",
			Doc:  "The full name of this host, as in the DNS. Without the file it is what the system calls it.",
			Value: ini.Scalar("a host name", func(s string) error {
				err := hostport.CheckOwnName(s)
				if err == nil {
					i.Me = s
				}
				return err
			}, text(&i.Me)),
		},
		{
			File: "queue_dir",
			Doc:  "The folder of the queue, relative to the instance's. Without the file it is queue. A change needs a restart.",
			Value: ini.Scalar("a path", func(s string) error {
				if !path.IsAbs(s) {
					s = path.Join(dir, s)
				}
				i.QueueDir = s
				return nil
			}, text(&i.QueueDir)),
		},
	}
}

const (
	oneProcess = "has no effect: one process uses all cores"
	supervisor = "has no effect: the process stays in the foreground, under systemd or another supervisor"
)

// smtp declares the keys of smtp.ini.
func (i *Instance) smtp() []*ini.Table {
	return []*ini.Table{{
		File: "smtp.ini",
		Rows: []ini.Row{
			{
				Key: "user", Since: "0.2.0", Kind: ini.Text(&i.User), Example: "tarishi",
				Doc: `The user to run as, by name or number. Only root can change to others: it binds the addresses above and
					reads keys and certificates, and then gives its rights up. The queue must belong to the user; an empty
					folder of root's is given to the user at the first start. Renewed keys, and changed files of
					this folder, are read with the user's rights. A change of user or group needs a restart.`,
			},
			{Key: "group", Since: "0.2.0", Kind: ini.Text(&i.Group), Example: "tarishi", Doc: "The group to run as. Without it, it is the user's own."},
			{
				Key: "graceful_shutdown", Kind: ini.Bool(&i.GracefulShutdown), Default: "true",
				Doc: `true: on a stop, sessions may finish what they are doing, for at most force_shutdown_timeout. Deliveries from
					the queue that have not sent their message to its end are given up at once and begin anew after the next
					start; the others may wait for the reply to it, for shutdown_reply_timeout. Without that reply a message
					may be delivered twice. false: all are ended at once.`,
			},
			{
				Key: "force_shutdown_timeout", Kind: ini.Duration(&i.ForceShutdownTimeout, 0), Default: "30",
				Doc: "How long a stop waits for sessions.",
			},
			{
				Key: "shutdown_reply_timeout", Since: "0.2.0", Kind: ini.Duration(&i.ShutdownReplyTimeout, 0), Default: "5", Haraka: ini.None,
				Doc: "How long of it next hops may take to answer to whole messages.",
			},
			{Key: "nodes", Note: oneProcess},
			{Key: "daemonize", Note: supervisor},
			{Key: "daemon_log_file", Note: supervisor},
			{Key: "daemon_pid_file", Note: supervisor},
			{Key: "ignore_bad_plugins", Note: "has no effect: a plugin that cannot be loaded always stops the start"},
		},
	}}
}

// hostname is the system's, or "localhost" where that is no host name.
func hostname() string {
	if name, err := os.Hostname(); err == nil && hostport.CheckOwnName(name) == nil {
		return name
	}
	return "localhost"
}
