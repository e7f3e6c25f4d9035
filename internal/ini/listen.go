package ini

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tarishi/internal/ini/grammar"
	"tarishi/internal/ini/hostport"
)

// Listen is a list of addresses to listen on; port is for those that name none.
func Listen(p *[]string, port int) Kind {
	set := func(values []string) error {
		// key=a,b and key[]=a with key[]=b mean the same.
		var all []string
		for _, v := range values {
			for one := range strings.SplitSeq(v, ",") {
				if one = strings.TrimFunc(one, grammar.IsBlank); one == "" {
					continue
				}
				addr, err := parseListen(one, port)
				if err != nil {
					return err
				}
				if slices.Contains(all, addr) && !strings.HasSuffix(addr, ":0") {
					return fmt.Errorf("%s is there twice", addr)
				}
				all = append(all, addr)
			}
		}
		if len(all) > 0 {
			*p = all
		}
		return nil
	}
	return Joined(fmt.Sprintf("addresses with commas between them, port %d where none is named", port), set,
		func() []string { return []string{strings.Join(*p, ",")} })
}

// parseListen reads ip[:port], [v6]:port, host[:port] or a port alone, which
// means every address. Port 0 lets the system choose.
func parseListen(s string, standard int) (string, error) {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		return fmt.Sprintf("[::]:%d", n), nil
	}
	host, port, err := hostport.Split(s, standard)
	if err != nil {
		return "", err
	}
	return hostport.Join(host, port), nil
}
