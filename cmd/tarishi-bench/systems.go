package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"tarishi/internal/dnstest"
	"tarishi/internal/loadtest"
	"tarishi/internal/loadtest/instance"
)

// domain is where all mail goes.
const domain = "sink.test"

// system is one server with its sink; without a server the load goes to the
// sink straight, which shows what the tool itself can do.
type system struct {
	name   string
	addr   string
	sink   *loadtest.Sink
	server *instance.Server // nil: none
}

// fleet is everything that has to end with the command.
type fleet struct {
	ctx     context.Context
	dir     string
	systems []*system
	stops   []func()
}

// startSystems starts what is to be compared. stop ends what has been started,
// also after an error.
func startSystems(ctx context.Context, binary, dir string, postfix bool, progress io.Writer) (systems []*system, stop func(), err error) {
	f := &fleet{ctx: ctx, dir: dir}
	stop = func() {
		for i := len(f.stops) - 1; i >= 0; i-- {
			f.stops[i]()
		}
	}
	if err := f.tarishi(binary); err != nil {
		return nil, stop, err
	}
	switch {
	case !postfix:
	case !instance.HasPostfix():
		fmt.Fprintln(progress, "Postfix is not installed, or this is not root: measuring without it")
	default:
		if err := f.postfix(); err != nil {
			return nil, stop, err
		}
	}
	sink, err := f.sink()
	if err != nil {
		return nil, stop, err
	}
	f.systems = append(f.systems, &system{name: noServer, addr: sink.Addr(), sink: sink})
	return f.systems, stop, nil
}

// Names in the table.
const (
	tarishiRelay = "Tarishi relay"
	tarishiQueue = "Tarishi queue"
	postfixName  = "Postfix"
	noServer     = "(no server)"
)

// tarishi starts a relay and a queue, each with a sink of its own.
func (f *fleet) tarishi(binary string) error {
	sink, err := f.sink()
	if err != nil {
		return err
	}
	err = f.start(tarishiRelay, sink, func(dir string) (*instance.Server, error) {
		err := instance.WriteFiles(dir, map[string]string{
			"config/smtp.ini":         "listen=127.0.0.1:0\n",
			"config/log.ini":          "level=warn\n",
			"config/plugins":          "rcpt_to.in_host_list\nqueue/smtp_forward\n",
			"config/host_list":        domain + "\n",
			"config/smtp_forward.ini": fmt.Sprintf("host=127.0.0.1\nport=%d\n", sink.Port()),
		})
		if err != nil {
			return nil, err
		}
		return instance.Tarishi(f.ctx, binary, dir, 1)
	})
	if err != nil {
		return err
	}
	dns, err := dnstest.Start()
	if err != nil {
		return err
	}
	f.stops = append(f.stops, func() { dns.Close() })
	dns.MX(domain, 10, "mx."+domain)
	dns.A("mx."+domain, "127.0.0.1")
	if sink, err = f.sink(); err != nil {
		return err
	}
	return f.start(tarishiQueue, sink, func(dir string) (*instance.Server, error) {
		err := instance.WriteFiles(dir, map[string]string{
			"config/smtp.ini":        "listen=127.0.0.1:0\n",
			"config/log.ini":         "level=warn\n",
			"config/plugins":         "relay\n",
			"config/relay_acl_allow": "127.0.0.0/8\n",
			"config/dns.ini":         "servers[]=" + dns.Addr() + "\n",
			"config/outbound.ini":    fmt.Sprintf("port=%d\nlocal_mx_ok=true\nconcurrency_max=100\n", sink.Port()),
		})
		if err != nil {
			return nil, err
		}
		return instance.Tarishi(f.ctx, binary, dir, 1)
	})
}

// postfix starts a Postfix with the settings that make it fastest here.
func (f *fleet) postfix() error {
	sink, err := f.sink()
	if err != nil {
		return err
	}
	next := fmt.Sprintf("[127.0.0.1]:%d", sink.Port())
	return f.start(postfixName, sink, func(dir string) (*instance.Server, error) {
		return instance.Postfix(f.ctx, dir, map[string]string{
			"relayhost":                             next,
			"default_process_limit":                 "200",
			"in_flow_delay":                         "0",
			"default_destination_concurrency_limit": "100",
			"initial_destination_concurrency":       "50",
			"smtp_connection_cache_on_demand":       "yes",
			"smtp_connection_cache_destinations":    next,
		})
	})
}

// sink starts a sink.
func (f *fleet) sink() (*loadtest.Sink, error) {
	s, err := loadtest.Listen(loadtest.SinkOptions{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background()) // it ends after the servers
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	f.stops = append(f.stops, func() { cancel(); <-done })
	return s, nil
}

// start starts a server in a folder of its own.
func (f *fleet) start(name string, sink *loadtest.Sink, start func(dir string) (*instance.Server, error)) error {
	server, err := start(filepath.Join(f.dir, fmt.Sprint(len(f.systems))))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f.stops = append(f.stops, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		server.Stop(ctx)
	})
	f.systems = append(f.systems, &system{name, server.Addr(), sink, server})
	return nil
}
