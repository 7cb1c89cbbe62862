package app

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"

	"muster/controller/bootiso"
)

// Config is everything that can be set about a head. Each key is a flag, an
// environment variable MUSTER_<KEY> and a key of the configuration file; a
// flag wins over the environment, and that over the file.
type Config struct {
	Data          string `key:"data" help:"directory that holds everything the head knows"`
	HTTP          string `key:"http" help:"address and port of plain HTTP, which firmware needs"`
	HTTPS         string `key:"https" help:"address and port of HTTPS"`
	Name          string `key:"name" help:"host name of this head; the system's when empty"`
	BootInterface string `key:"boot-interface" help:"interface on which machines boot; without it there is no DHCP and no TFTP"`
	ProxyDHCP     bool   `key:"proxy-dhcp" help:"another DHCP server gives the addresses, only tell machines what to boot"`
	IPXE          string `key:"ipxe" help:"directory of the iPXE binaries of the distribution's package ipxe"`
	ISCSI         string `key:"iscsi" help:"address and port of the iSCSI target; port 3260 on the boot interface when empty, \"none\" for none"`
	Ignition      string `key:"ignition" help:"the ignition binary that /ignition/bin gives; none when empty"`
	GRUB          string `key:"grub" help:"directory of GRUB's modules, for ISOs"`
	Lease         string `key:"lease" help:"how long a DHCP lease lasts"`
	Agent         string `key:"agent" help:"the muster-agent that nodes get; the one beside this program when empty"`
	Packages      string `key:"packages" help:"directory of the packages for other machines; packages beside this program when empty"`
	PAMHelper     string `key:"pam-helper" help:"the program that asks PAM; muster-pam beside this program when empty"`
	Proxies       string `key:"trusted-proxies" help:"networks of proxies whose X-Forwarded-For is believed, with commas"`
	ReportEvery   int    `key:"report-every" help:"how often nodes report their status, in seconds"`
	DNS           string `key:"dns" help:"address and port of the DNS server, such as 0.0.0.0:53; none when empty"`
	DNSUpstreams  string `key:"dns-upstreams" help:"resolvers that DNS asks for other names, with commas; those of /etc/resolv.conf when empty, \"none\" for none"`
	ConsoleSize   int    `key:"console-log-size" help:"how large a file of a console's log gets, in KiB, until the next one is begun"`
	ConsoleFiles  int    `key:"console-log-files" help:"how many files are kept of each console's log"`
	RecoverRate   int    `key:"recover-rate" help:"how many nodes that do not come up are switched off and on in a minute, at most"`
	AuditRecords  int    `key:"audit-records" help:"how many records the audit trail keeps"`
	AuditDays     int    `key:"audit-days" help:"for how many days the audit trail keeps a record"`
	Metrics       string `key:"metrics" help:"address and port that gives the metrics to anybody who reaches it, such as 127.0.0.1:9180; none when empty, the API gives them with a token"`
	OTLP          string `key:"otlp-url" help:"where boots are sent as OpenTelemetry traces, such as http://collector:4318/v1/traces; nowhere when empty"`
	Influx        string `key:"influx-url" help:"where InfluxDB takes the nodes' numbers, such as http://influx:8086/api/v2/write?org=o&bucket=b, with the cluster's influx_token; nowhere when empty"`
	LogLevel      string `key:"log-level" help:"debug, info, warn or error; a reload (SIGHUP) takes a new one"`
}

// Defaults is the configuration of a head that was told nothing.
func Defaults() Config {
	return Config{
		Data: "/var/lib/muster", HTTP: "0.0.0.0:8080", HTTPS: "0.0.0.0:8443", IPXE: "/usr/lib/ipxe", GRUB: bootiso.DefaultGRUB,
		Lease: "24h", ReportEvery: 10, ConsoleSize: 1024, ConsoleFiles: 4, RecoverRate: 10, AuditRecords: 100_000, AuditDays: 365, LogLevel: "info",
	}
}

// Flags adds a flag for every key.
func (c *Config) Flags(fs *pflag.FlagSet) {
	each(c, func(key, help string, v reflect.Value) error {
		switch p := v.Addr().Interface().(type) {
		case *string:
			fs.StringVar(p, key, *p, help)
		case *bool:
			fs.BoolVar(p, key, *p, help)
		case *int:
			fs.IntVar(p, key, *p, help)
		}
		return nil
	})
}

// Fill takes what no flag set from the environment, and what that does not
// have from the file, if one is named.
func (c *Config) Fill(fs *pflag.FlagSet, getenv func(string) string, file string) error {
	values := map[string]any{}
	if file != "" {
		if _, err := toml.DecodeFile(file, &values); err != nil {
			return fmt.Errorf("configuration file %s: %w", file, err)
		}
	}
	err := each(c, func(key, _ string, v reflect.Value) error {
		text, source := "", "environment variable "+envName(key)
		if text = getenv(envName(key)); text == "" {
			if value, ok := values[key]; ok {
				text, source = fmt.Sprint(value), file+": "+key
			}
		}
		delete(values, key)
		if text == "" || fs.Changed(key) {
			return nil
		}
		return set(v, text, source)
	})
	if err != nil {
		return err
	}
	for key := range values {
		return fmt.Errorf("configuration file %s: there is no key %q; `muster serve --help` lists them", file, key)
	}
	return c.check()
}

func envName(key string) string {
	return "MUSTER_" + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

func each(c *Config, fn func(key, help string, v reflect.Value) error) error {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		if err := fn(tag.Get("key"), tag.Get("help"), v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

func set(v reflect.Value, text, source string) error {
	var err error
	switch v.Kind() {
	case reflect.Bool:
		var b bool
		b, err = strconv.ParseBool(text)
		v.SetBool(b)
	case reflect.Int:
		var n int
		n, err = strconv.Atoi(text)
		v.SetInt(int64(n))
	default:
		v.SetString(text)
	}
	if err != nil {
		return fmt.Errorf("%s: %q is not a %s", source, text, v.Kind())
	}
	return nil
}

func (c *Config) check() error {
	if c.Data == "" {
		return fmt.Errorf("--data must name a directory")
	}
	addrs := map[string]string{"http": c.HTTP, "https": c.HTTPS}
	if c.DNS != "" {
		addrs["dns"] = c.DNS
	}
	if c.Metrics != "" {
		addrs["metrics"] = c.Metrics
	}
	for key, text := range map[string]string{"otlp-url": c.OTLP, "influx-url": c.Influx} {
		if u, err := url.Parse(text); text != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("--%s is not a URL such as http://host:4318/path", key)
		}
	}
	for key, addr := range addrs {
		_, port, err := net.SplitHostPort(addr)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fmt.Errorf("--%s %q is not an address and a port such as 0.0.0.0:8080", key, addr)
		}
	}
	if _, err := time.ParseDuration(c.Lease); err != nil {
		return fmt.Errorf("--lease %q is not a duration such as 24h", c.Lease)
	}
	if c.ReportEvery < 1 || c.ReportEvery > 3600 {
		return fmt.Errorf("--report-every %d is not between 1 and 3600 seconds", c.ReportEvery)
	}
	if c.ConsoleSize < 4 || c.ConsoleSize > 4<<20 || c.ConsoleFiles < 1 || c.ConsoleFiles > 100 {
		return fmt.Errorf("--console-log-size %d and --console-log-files %d must be from 4 KiB to 4 GiB, and from 1 to 100", c.ConsoleSize, c.ConsoleFiles)
	}
	if c.RecoverRate < 1 || c.RecoverRate > 1000 {
		return fmt.Errorf("--recover-rate %d is not between 1 and 1000 nodes in a minute", c.RecoverRate)
	}
	if c.AuditRecords < 1 || c.AuditDays < 1 || c.AuditDays > 36_500 {
		return fmt.Errorf("--audit-records %d and --audit-days %d must be positive, and a century is the most", c.AuditRecords, c.AuditDays)
	}
	if _, err := c.proxies(); err != nil {
		return err
	}
	if _, err := c.upstreams(); err != nil {
		return err
	}
	_, err := c.level()
	return err
}

func (c *Config) proxies() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range strings.FieldsFunc(c.Proxies, func(r rune) bool { return r == ',' || r == ' ' }) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("--trusted-proxies: %q is neither an address nor a network", text)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}

// beside gives the path of a program that is installed next to this one.
func beside(configured, name string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(self), name), nil
}
