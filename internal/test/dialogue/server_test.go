package dialogue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/load/instance"
	"tarishi/internal/test/namespace"
)

// order is what a process in a namespace of its own does: it starts a server and has
// the dialogues of a site with it.
type order struct {
	Server  string // haraka or tarishi
	Program string
	Dir     string // an empty folder
	Site    *site
}

// report is what comes back.
type report struct {
	Err      string // "": it was done
	Outcomes [][]outcome
	Log      string // of the server
}

// orderVariable makes the test binary carry out the order that it names.
const orderVariable = "TARISHI_DIALOGUE_ORDER"

// carryOut does what an order says, and prints the report.
func carryOut(file string) error {
	runtime.LockOSThread() // the server ends with the thread that has started it
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(text, &o); err != nil {
		return err
	}
	var r report
	if err := o.run(&r); err != nil {
		r.Err = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func (o *order) run(r *report) error {
	nameserver, _, _ := net.SplitHostPort(dnsAddr)
	if err := namespace.Prepare(o.Dir, nameserver, o.Site.uses6()); err != nil {
		return err
	}
	d, err := dnstest.StartAt(dnsAddr)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := fill(d, o.Site.DNS); err != nil {
		return err
	}
	if o.Server == haraka && slices.Contains(o.Site.Needs, redisServer) {
		redis, err := instance.Start(child(exec.Command(redisServer, "--save", "", "--dir", o.Dir)))
		if err != nil {
			return err
		}
		defer redis.Stop(context.Background())
	}
	p, spool, err := o.start()
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		p.Stop(ctx)
		r.Log = p.Log()
	}()
	if err := o.await(p); err != nil {
		return err
	}
	next, err := startNextHop(spool)
	if err != nil {
		return err
	}
	defer next.Close()
	r.Outcomes = playAll(o.Server, o.Site.Dialogues, spool)
	return nil
}

// redisServer keeps what Haraka counts. It listens on its usual port of loopback.
const redisServer = "redis-server"

// child makes cmd end with this process.
func child(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// uses6 reports whether a client has an address of IPv6. Other sites work without it.
func (s *site) uses6() bool {
	return slices.ContainsFunc(s.Dialogues, func(d dialogue) bool {
		return slices.ContainsFunc(d.Steps, func(st step) bool { return strings.Contains(st.Connect, ":") })
	})
}

// start writes the instance and starts the server. Messages for its domains go into
// the folder spool.
func (o *order) start() (p *instance.Process, spool string, err error) {
	dir := filepath.Join(o.Dir, o.Server)
	spool = filepath.Join(o.Dir, "spool")
	files := map[string]string{
		"me":        "mx.here.test\n",
		"host_list": "here.com\n",
		"plugins":   o.Site.Plugins + "rcpt_to.in_host_list\nqueue/test\n",
		"smtp.ini":  "listen=" + o.listen() + "\nnodes=0\n",
		"log.ini":   "[main]\nlevel=info\n",
	}
	argv := []string{o.Program, "serve", "-c", dir}
	if o.Server == haraka {
		argv = []string{instance.NodeOf(o.Program), o.Program, "-c", dir}
		// Its own installer copies this file; the rest is the default where it is absent.
		text, err := os.ReadFile(filepath.Join(filepath.Dir(o.Program), "..", "config", "connection.ini"))
		if err != nil {
			return nil, "", err
		}
		files["connection.ini"] = string(text)
		files["dhparams.pem"] = instance.DHParameters
		files["plugins"] += "dialogue_ready\n"
		files["../plugins/dialogue_ready.js"] = readyPlugin
	}
	maps.Copy(files, o.Site.Config)
	files["plugins"] = o.Site.Own[o.Server]["plugins"] + files["plugins"]
	for name, text := range o.Site.Own[o.Server] {
		if name != "plugins" && name != "ready" {
			files[name] = text
		}
	}
	in := map[string]string{}
	for name, text := range files {
		in["config/"+name] = text
	}
	if err := errors.Join(instance.WriteFiles(dir, in), os.MkdirAll(filepath.Join(dir, "queue"), 0o755), os.MkdirAll(spool, 0o755)); err != nil {
		return nil, "", err
	}

	cmd := child(exec.Command(argv[0], argv[1:]...))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+spool)
	p, err = instance.Start(cmd)
	return p, spool, err
}

// readyPlugin is a plugin of Haraka's that says when its lists of top-level domains are
// there: it loads them in the background, and knows no domain until then.
const (
	readyPlugin = `const tlds = require('haraka-tld')
exports.register = function () {
    const timer = setInterval(() => {
        if (!tlds.get_organizational_domain('mail.good.com')) return
        clearInterval(timer)
        this.lognotice('` + readyText + `')
    }, 20)
}
`
	readyText = "all lists are there"
)

// listen is where the server listens.
func (o *order) listen() string {
	if o.Site.uses6() {
		return serverAddr + "," + serverAddr6
	}
	return serverAddr
}

// await waits until the server listens, and has all that it needs.
func (o *order) await(p *instance.Process) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ready := strings.Split(strings.TrimSpace(o.Site.Own[o.Server]["ready"]), "\n")
	if o.Server == haraka {
		ready = append(ready, readyText)
	}
	for _, text := range ready {
		if err := p.Await(ctx, func(log string) bool { return strings.Contains(log, text) }); err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(probeAddr)}, Timeout: time.Second}
	for ctx.Err() == nil {
		if c, err := d.Dial("tcp", serverAddr); err == nil {
			c.Close()
			return nil
		}
		select {
		case <-p.Exited():
			return fmt.Errorf("the server has ended: %s", p.Log())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("the server does not listen: %s", p.Log())
}
