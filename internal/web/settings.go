package web

import "tarishi/internal/ini"

// Settings is what http.ini says of listening.
type Settings struct {
	Listen    []string // where metrics and health are served, "host:port" each; empty: nowhere
	TLSListen []string // the same with TLS, and the certificates of tls.ini
}

// The ports of addresses in http.ini that name none.
const (
	httpPort  = 9825
	httpsPort = 9826
)

// Tables declares the keys of http.ini.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{{
		File: "http.ini",
		Doc: `Metrics for Prometheus at /metrics, and at /health 200 while mail can be accepted, else 503 and why. Nothing else
			is served. docs/metrics.md lists the metrics.`,
		Rows: []ini.Row{
			{
				Key: "listen", Kind: ini.Listen(&s.Listen, httpPort), Example: "127.0.0.1:9825",
				Doc: `Where to listen: ip, ip:port or [ip6]:port, several with commas; a port alone means every address. Nowhere
					unless it is set. Nobody is asked for a password, and the metrics name the domains that mail goes to: stay
					on loopback, or put the address behind a firewall. The control socket, queue/control.sock, answers the
					same two in any case, and 'tarishi metrics' prints them.`,
			},
			{
				Key: "tls_listen", Kind: ini.Listen(&s.TLSListen, httpsPort), Example: "192.0.2.1:9826", Haraka: ini.None, Since: "0.3.0",
				Doc: "The same with TLS and the certificates of tls.ini; port 9826 unless one is given.",
			},
			{Key: "docroot", Note: "has no effect: only metrics and health are served"},
		},
	}}
}
