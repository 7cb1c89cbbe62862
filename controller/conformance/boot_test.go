package conformance

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// upload is bytes that are no JSON and no text.
const upload = "\x00\x01\xff{\"success\":true}\r\n\xfe"

// fileRows are those of a file that belongs to an object: an upload replaces
// it, a frozen object keeps it.
func fileRows(single, file string) []row {
	path := "/" + single + "/files/" + file
	return []row{
		{"GET", "/" + single + "/<UID>/" + file, token, "the file as it was uploaded, byte for byte; 404 in the envelope without one", func(c *check) {
			c.GET(path).refused(404)
			c.PUT(path, upload).done()
			c.same(string(c.GET(path).bytes()), show(upload))
			c.GET("/"+single+"/nobody/"+file).reasoned(404, "No "+single+" found for ID=nobody")
		}},
		{"PUT", "/" + single + "/<UID>/" + file, token, "replaces the file; refused while the object is frozen", func(c *check) {
			big := strings.Repeat("0123456789abcdef", 1<<20) // more than a JSON body may have
			c.PUT(path, big).done()
			if got := c.GET(path).bytes(); string(got) != big {
				c.fail("%d bytes were uploaded, %d come back", len(big), len(got))
			}
			c.PUT(path, upload).done()
			c.PATCH("/"+single+"/files", `{"frozen":true}`).done()
			c.PUT(path, "other").refused(409, "frozen")
			c.PATCH("/"+single+"/files", `{"frozen":false}`).done()
			c.same(string(c.GET(path).bytes()), show(upload))
			c.PATCH("/"+single+"/files", `{"`+file+`":"x"}`).refused(400, "Unhandled parameter(s): "+file)
		}},
		{"DELETE", "/" + single + "/<UID>/" + file, token, "removes the file and nothing else; refused while the object is frozen", func(c *check) {
			c.PUT(path, upload).done()
			c.PATCH("/"+single+"/files", `{"frozen":true}`).done()
			c.DELETE(path).refused(409, "frozen")
			c.PATCH("/"+single+"/files", `{"frozen":false}`).done()
			c.DELETE(path).done()
			c.GET(path).refused(404)
			c.GET("/" + single + "/files").ok()
		}},
	}
}

// bootSetup makes a boot configuration that can boot, and one whose files
// come and go.
func bootSetup(c *check) {
	c.POST("/bootconfigs", `{"name":"files"}`).uid()
	c.POST("/images", `{"name":"real"}`).uid()
	c.POST("/bootconfigs", `{"name":"real","image":"real","cmdline":"quiet"}`).uid()
	c.PUT("/bootconfig/real/kernel", kernel()).done()
	c.PUT("/bootconfig/real/initramfs", initramfs()).done()
	c.PUT("/image/real/content", squashfs(c)).done()
	c.POST("/nets", `{"first_ip":"127.67.0.10","ip_count":20,"mask_bits":24}`).uid()
	c.POST("/nodes", `{"mac":"52:54:00:00:90:01","attributes":{"disk":"/dev/vda"}}`).uid()
	c.file("kickstarts/ks.cfg", "install <name> on <a[disk]> from <head[name]>\n")
}

// kernel is as much of one as its header: magic numbers and nothing to run.
func kernel() string {
	k := make([]byte, 64<<10)
	copy(k[0x1fe:], "\x55\xaa")
	copy(k[0x202:], "HdrS\x0f\x02")
	return string(k)
}

// initramfs is an archive of nothing, in cpio's newc form.
func initramfs() string {
	head := "070701" + strings.Repeat("00000000", 11) + "0000000B" + "00000000" + "TRAILER!!!\x00"
	return head + strings.Repeat("\x00", (512-len(head)%512)%512)
}

// squashfs is a small image, made by the tool that makes real ones.
func squashfs(c *check) string {
	dir := c.TempDir()
	os.MkdirAll(filepath.Join(dir, "tree/etc"), 0o755)
	os.WriteFile(filepath.Join(dir, "tree/etc/hostname"), []byte("image\n"), 0o644)
	out, err := exec.Command("mksquashfs", filepath.Join(dir, "tree"), filepath.Join(dir, "image"), "-quiet", "-no-progress").CombinedOutput()
	c.must(err == nil, "mksquashfs: %v: %s", err, out)
	raw, err := os.ReadFile(filepath.Join(dir, "image"))
	c.must(err == nil, "%v", err)
	return string(raw)
}

// file puts one into the head's directory, as an admin on the head would.
func (c *check) file(path, text string) {
	path = filepath.Join(c.Data, path)
	c.must(os.MkdirAll(filepath.Dir(path), 0o755) == nil && os.WriteFile(path, []byte(text), 0o644) == nil, "%s cannot be written", path)
}

func bootconfigRows() []row {
	return join([]row{
		{"GET", "/bootconfigs/errors", token, "success only when every boot configuration can boot, else the reasons", func(c *check) {
			c.GET("/bootconfigs/errors").refused(0, "files", "kernel")
			if a := c.GET("/bootconfigs/errors"); strings.Contains(a.reason, "real") {
				c.fail("%s: accuses one that can boot: %s", a.call, a.reason)
			}
		}},
		{"GET", "/bootconfigs/mkiso", token, "a bootable ISO of a boot configuration and an image", func(c *check) {
			ask := func() *answer {
				return c.GET("/bootconfigs/mkiso", `{"uid":"real","image":"real","url":`+show(c.HTTP)+`}`)
			}
			a := ask()
			for end := time.Now().Add(time.Minute); strings.Contains(a.reason, "still packing") && time.Now().Before(end); a = ask() {
				time.Sleep(100 * time.Millisecond) // nothing tells when the agent is packed
			}
			iso := a.bytes()
			if len(iso) < 64<<10 || !bytes.Equal(iso[0x8001:0x8006], []byte("CD001")) {
				c.fail("%d bytes came, which are no ISO 9660 file system", len(iso))
			}
			if again := c.GET("/bootconfigs/mkiso?uid=real&url=" + c.HTTP).bytes(); len(again) < 64<<10 {
				c.fail("a query gives %d bytes", len(again))
			}
			c.GET("/bootconfigs/mkiso").refused(400, "uid")
			c.GET("/bootconfigs/mkiso", `{"uid":"nobody"}`).reasoned(404, "No bootconfig found for ID=nobody")
			c.GET("/bootconfigs/mkiso", `{"uid":"files"}`).refused(0, "kernel")
		}},
	}, fileRows("bootconfig", "kernel"), fileRows("bootconfig", "initramfs"), []row{
		{"GET", "/bootconfig/<UID>/kickstart", token, "the file filled in for a node: the calling one, or ?node=", func(c *check) {
			c.PATCH("/bootconfig/real", `{"kickstart":"ks.cfg"}`).done()
			want := "install n0 on /dev/vda from " + headName + "\n"
			c.same(c.GET("/bootconfig/real/kickstart?node=n0").text(), show(want))
			c.same((&asker{check: c, as: c.token, from: "127.67.0.10"}).GET("/bootconfig/real/kickstart").text(), show(want))
			c.GET("/bootconfig/real/kickstart").refused(0)
			c.GET("/bootconfig/files/kickstart?node=n0").refused(404)
			for _, path := range []string{"../muster.db", "/etc/passwd", "sub/../../x", ".hidden", "a\\b"} {
				c.PATCH("/bootconfig/real", show(map[string]any{"kickstart": path})).refused(400, "kickstart:")
			}
			c.same(c.GET("/bootconfig/real").object()["kickstart"], `"ks.cfg"`)
			c.PATCH("/bootconfig/real", `{"kickstart":"none.cfg"}`).done()
			c.GET("/bootconfig/real/kickstart?node=n0").refused(404)
		}},
		{"GET", "/bootconfig/<UID>/errors", token, "the same for one; an unknown one is told apart", func(c *check) {
			c.PATCH("/bootconfig/real", `{"kickstart":null}`).done()
			c.GET("/bootconfig/real/errors").done()
			a := c.GET("/bootconfig/files/errors")
			a.refused(0, "kernel")
			if a.status == 404 {
				c.fail("%s: looks like an unknown one: %s", a.call, a.raw)
			}
			c.GET("/bootconfig/nobody/errors").reasoned(404, "No bootconfig found for ID=nobody")
		}},
		{"GET", "/bootconfig/<UID>/export", token, "everything of it as one file, to keep and to share", func(c *check) {
			archive := string(c.GET("/bootconfig/real/export").bytes())
			c.elsewhere(func(o *check) {
				o.POST("/bootconfigs/import", archive[:len(archive)/2]).refused(400)
				o.GET("/bootconfig/real").refused(404)
				o.POST("/bootconfigs/import", archive).has("name", `"real"`, "image", `"real"`)
				o.GET("/bootconfig/real").has("cmdline", `"quiet"`, "image", `"real"`)
				for _, file := range []string{"/bootconfig/real/kernel", "/bootconfig/real/initramfs", "/image/real/content"} {
					o.same(string(o.GET(file).bytes()), show(string(c.GET(file).bytes())))
				}
				o.GET("/bootconfig/real/errors").done()
				o.POST("/bootconfigs/import", archive).refused(409, "already")
			})
			c.GET("/bootconfig/nobody/export").reasoned(404, "No bootconfig found for ID=nobody")
		}},
	})
}

func imageSetup(c *check) {
	c.POST("/images", `{"name":"files"}`).uid()
	c.POST("/images", `{"name":"captured"}`).uid()
	c.POST("/nets", `{"first_ip":"127.68.0.10","ip_count":20,"mask_bits":24}`).uid()
	c.POST("/nodes", `{"mac":"52:54:00:00:91:01"}`).uid()
}

func imageRows() []row {
	return join(fileRows("image", "content"), []row{
		{"GET", "/image/<UID>/content/stat", token, "size and time", func(c *check) {
			c.PUT("/image/files/content", upload).done()
			o := c.GET("/image/files/content/stat").has("size", show(len(upload)))
			if t, _ := o["mtime"].(float64); t < 1e9 {
				c.fail("mtime is %v", o["mtime"])
			}
			c.DELETE("/image/files/content").done()
			c.GET("/image/files/content/stat").refused(404)
		}},
		{"GET", "/image/<UID>/content/info", token, "size, time, checksum, references and format, as the image shows them", func(c *check) {
			c.PUT("/image/files/content", upload).done()
			content, _ := c.GET("/image/files").object()["content"].(map[string]any)
			squash, _ := content["cwsquash"].(map[string]any)
			c.GET("/image/files/content/info").has("size", show(len(upload)), "mtime", show(squash["mtime"]),
				"chksum", `"sha1:`+sha1Of(upload)+`"`, "refcnt", `1`, "fmt", `"cwsquash"`)
			c.same(squash["chksum"], `"sha1:`+sha1Of(upload)+`"`)
		}},
		{"GET", "/image/<UID>/capture", token, "fills the image from a running node; excluded paths stay out", func(c *check) {
			c.GET("/image/captured/capture").refused(400, "uid")
			c.GET("/image/captured/capture", `{"uid":"nobody"}`).reasoned(404, "No node found for ID=nobody")
			c.GET("/image/nobody/capture", `{"uid":"n0"}`).reasoned(404, "No image found for ID=nobody")
			c.GET("/image/captured/capture", `{"uid":"n0"}`).refused(0) // nobody is there
			c.agent("n0", "127.68.0.10")
			c.GET("/image/captured/capture", `{"uid":"n0","exclude":"/a\nb"}`).refused(400, "exclude")
			c.GET("/image/captured/capture", `{"uid":"n0","compress":"lzw"}`).refused(400, "compress")
			c.GET("/image/captured/capture", captureOf("n0", "/etc")).done()
			names := c.filesIn("/image/captured/content")
			for name, want := range map[string]bool{"etc/passwd": true, "etc/machine-id": true, "usr/bin": false, "proc": true, "proc/self": false} {
				if names[name] != want {
					c.fail("%s in the captured image: %v, want %v", name, names[name], want)
				}
			}
			c.POST("/image/captured/capture", captureOf("n0", "/nothing")).done()
		}},
	})
}
