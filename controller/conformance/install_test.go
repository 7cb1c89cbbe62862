package conformance

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
)

func provisionSetup(c *check) {
	c.POST("/nets", `{"first_ip":"127.71.0.10","ip_count":20,"mask_bits":24}`).uid()
	c.POST("/nodes", `{"mac":"52:54:00:00:94:01"}`).uid()
	c.file("kickstarts/plain.cfg", "as it is: <name>\n")
	c.file("kickstarts/switch.sh", "#!/bin/sh\nhostname <name>\n")
	c.file("kickstarts/node.ign", `{"ignition":{"version":"3.4.0"}}`)
	c.file("secret", "not for anybody\n")
}

// outside are names by which files of the head must not be had.
var outside = []string{"..%2fsecret", "%2e%2e/secret", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "none.cfg"}

func provisionRows() []row {
	return []row{
		{"GET", "/kickstart/<NAME>", public, "a file of the kickstart directory as it is, and no other", func(c *check) {
			c.same(c.anybody().GET("/kickstart/plain.cfg").text(), `"as it is: <name>\n"`)
			for _, name := range outside {
				c.anybody().GET("/kickstart/" + name).refused(0)
			}
			c.anybody().GET("/kickstart/none.cfg").refused(404)
		}},
		{"GET", "/ztp/script", public, "the script that the calling node's _boot_config names", func(c *check) {
			n := c.at("127.71.0.10")
			n.GET("/ztp/script").refused(0, "_boot_config")
			c.PATCH("/node/n0/attributes", `{"_boot_config":"ztp:switch.sh"}`).done()
			n.GET("/ztp/script").text("#!/bin/sh\n", "hostname")
			c.PATCH("/node/n0/attributes", `{"_boot_config":"ztp:../secret"}`).done()
			n.GET("/ztp/script").refused(0)
			c.at("127.71.0.99").GET("/ztp/script").refused(404, "No node found for ID=127.71.0.99")
		}},
		{"GET", "/ignition/bin", public, "the binary that the head is configured with", func(c *check) {
			c.anybody().GET("/ignition/bin").refused(404, "ignition")
			binary := "\x7fELF" + upload
			c.must(os.WriteFile(c.ignition, []byte(binary), 0o755) == nil, "%s cannot be written", c.ignition)
			c.same(string(c.anybody().GET("/ignition/bin").bytes()), show(binary))
		}},
		{"GET", "/ignition/<UID>", public, "the node's configuration, from where _ignition says", func(c *check) {
			uid, _ := c.GET("/node/n0").object()["uid"].(string)
			c.anybody().GET("/ignition/"+uid).refused(0, "_ignition")
			c.PATCH("/node/n0/attributes", `{"_ignition":"node.ign"}`).done()
			c.anybody().GET("/ignition/" + uid).text(`"version"`)
			c.PATCH("/node/n0/attributes", `{"_ignition":"../secret"}`).done()
			c.anybody().GET("/ignition/" + uid).refused(0)
			c.anybody().GET("/ignition/nobody").reasoned(404, "No node found for ID=nobody")
		}},
	}
}

// shell says that a raw answer is a script that a shell takes.
func (a *answer) shell() string {
	text := a.text("#!")
	cmd := exec.Command("sh", "-n")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		a.fail("%s: sh: %s", a.call, out)
	}
	return text
}

var download = regexp.MustCompile(`/install/client/download/(tar|rpm|deb)/[A-Za-z0-9._+~-]+`)

func installRows() []row {
	return []row{
		{"GET", "/install/head/scyld-install", public, "the script that joins a server to this head", func(c *check) {
			c.anybody().GET("/install/head/scyld-install").shell()
		}},
		{"POST", "/install/password", public, "whether it is the cluster's password; guessing is slowed down", func(c *check) {
			c.anybody().POST("/install/password", `{}`).refused(400, "admin_pass")
			limited := false
			for range 50 {
				a := c.anybody().POST("/install/password", `{"admin_pass":"guess"}`)
				a.refused(0)
				limited = limited || a.status == 429
			}
			if !limited {
				c.fail("50 guesses in a row were answered")
			}
		}},
		{"GET", "/install/repo", public, "the repository's configuration, in the envelope", func(c *check) {
			c.anybody().GET("/install/repo").filled()
		}},
		{"GET", "/install/client/installer", public, "the script that fits best; without parameters one that finds out", func(c *check) {
			c.anybody().GET("/install/client/installer").shell()
			for _, query := range []string{"cpu=x86_64&os=debian&pkg=deb", "cpu=aarm64&os=rhel8&pkg=rpm", "cpu=arm64&os=cumulus", "cpu=aarch64&os=sonic", "os=rhel8", "pkg=tar"} {
				c.anybody().GET("/install/client/installer?" + query).shell()
			}
			c.anybody().GET("/install/client/installer?cpu=z80").refused(0, "z80")
			c.anybody().GET("/install/client/installer?pkg=floppy").refused(0, "floppy")
		}},
		{"GET", "/install/client/download/<PKGSYS>/<NAME>", public, "the packages that the installers name", func(c *check) {
			for _, pkg := range []string{"tar", "deb", "rpm"} {
				script := c.anybody().GET("/install/client/installer?cpu=x86_64&os=debian&pkg=" + pkg).text()
				path := download.FindString(script)
				c.must(path != "", "the %s installer names no package", pkg)
				if raw := c.anybody().GET(path).bytes(); len(raw) < 1<<20 {
					c.fail("%s has %d bytes, less than an agent", path, len(raw))
				}
			}
			for _, name := range outside {
				c.anybody().GET("/install/client/download/tar/" + name).refused(0)
			}
			c.anybody().GET("/install/client/download/floppy/x").refused(0)
		}},
	}
}
