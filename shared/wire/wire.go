// Package wire is what agent and head say to each other: paths, messages and
// the frames of a stream, with one version number and its history.
//
// It holds types and their encoding, no behaviour: dialing is agent/link's,
// serving is controller/fleet's. Fields are only ever added, and a missing one
// means what its zero value says, so that an agent of an older image still
// works with a newer head.
package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// Version is sent by both sides when a link is made.
//
//	1: the link, exec, boot, enrol, step; an image's pieces, indices and chunks.
//	2: attributes come over the link; reports of what changed.
//	3: a node's own files come over the link and before its root is entered.
//	4: reports go over the link, as streams that the agent opens.
const Version = 4

// Paths that only agents and firmware use; the published API has its own.
const (
	PathEnrol  = "/agent/v1/enrol" // POST Enrol → Enrolled, over TLS pinned to the head's CA
	PathBoot   = "/agent/v1/boot"  // GET → Boot: what this node shall become
	PathStep   = "/agent/v1/step"  // POST Step: a stamp on the boot timeline
	PathLink   = "/agent/v1/link"  // GET, upgraded to a websocket that carries yamux streams
	PathScript = "/boot/v1/script" // GET: the iPXE script for the asking address
	PathGo     = "/boot/v1/go"     // GET: its second part, with the one-time key
	PathFile   = "/boot/v1/file/"  // GET <sha256>/<any name>: a file by content, with ranges
	PathStatus = "/api/v1/node/putstatus"
	PathImage  = "/agent/v1/image/"  // GET <name or UID> → Image
	PathIndex  = "/agent/v1/index/"  // GET <sha256>: an index, see IndexDelta
	PathChunks = "/agent/v1/chunks"  // POST digests → frames as images/chunk has them, in their order
	PathFiles  = "/agent/v1/overlay" // GET → Overlay: the asking node's own files
)

// Keys of the kernel command line, all with the prefix "muster.".
const (
	CmdlineHead   = "muster.head"   // http URL of the head
	CmdlineHTTPS  = "muster.https"  // https URL of the head
	CmdlineCA     = "muster.ca"     // lower-case hex SHA-256 of the CA certificate's DER
	CmdlineKey    = "muster.key"    // one-time enrolment key
	CmdlineConfig = "muster.config" // UID of a boot config to boot instead of the node's own
	CmdlineImage  = "muster.image"  // UID of an image to boot instead of the boot config's own
	CmdlineMAC    = "muster.mac"    // the interface that the firmware booted from
	CmdlineStop   = "muster.stop"   // name of a step to stop before, for debugging: "image" or "root"; or StopRescue
)

// StopRescue stops before the image, on purpose: it counts as no failure.
const StopRescue = "rescue"

// DetailRescue is the detail of StepAgent of a machine that waits in its rescue
// shell.
const DetailRescue = "rescue shell"

// KeyAsk stands for a key on a command line that no script made, such as that
// on an ISO: the agent asks for one.
const KeyAsk = "ask"

// The keys of the query of PathBoot, with what CmdlineConfig and CmdlineImage say.
const (
	QueryConfig = "config"
	QueryImage  = "image"
)

// HeaderAgent carries the agent's build version, HeaderVersion wire.Version.
const (
	HeaderAgent   = "Muster-Agent"
	HeaderVersion = "Muster-Wire"
)

// Enrol trades a one-time key for a certificate. CSR is PKCS #10 in DER; its
// subject is ignored, the head decides whom the key speaks for.
type Enrol struct {
	Key string `json:"key"`
	CSR []byte `json:"csr"`
	MAC string `json:"mac"`
}

// Enrolled is the answer: DER certificates, the node's own first, then the CA.
type Enrolled struct {
	Node  string   `json:"node"` // UID
	Chain [][]byte `json:"chain"`
}

// Boot says what a node shall become. It is what the head's plan says at the
// moment of asking, so a node that retries gets today's answer.
type Boot struct {
	UID     string    `json:"uid"`
	Name    string    `json:"name"`
	Domain  string    `json:"domain,omitempty"`
	Style   string    `json:"style"` // rwram, roram, disked or iscsi
	Image   *Image    `json:"image,omitempty"`
	Disk    *Disk     `json:"disk,omitempty"`    // with disked
	Target  *Target   `json:"target,omitempty"`  // with iscsi
	Problem string    `json:"problem,omitempty"` // why there is nothing to boot; ask again later
	Hosts   []string  `json:"hosts,omitempty"`   // lines of /etc/hosts for the head
	Time    time.Time `json:"time"`              // the head's clock: diskless machines often have none
}

// Target is where an image is read over iSCSI.
type Target struct {
	Address string `json:"address"` // IP and port
	Name    string `json:"name"`    // iSCSI qualified name
}

// Disk names devices of the node: by path, or LABEL=, UUID= or PARTLABEL=.
type Disk struct {
	Root  string   `json:"root"`            // becomes the root; a whole disk is partitioned
	Cache string   `json:"cache,omitempty"` // keeps images between boots
	Wipe  []string `json:"wipe,omitempty"`  // of them, those that may be erased when they hold something else
}

// Image names a squashfs file by content.
type Image struct {
	Name   string `json:"name"`
	UID    string `json:"uid"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	// Pieces is the SHA-256 of the list of the file's pieces: 32 bytes for each
	// PieceSize of the file, the SHA-256 of what they hold. The list is a file by
	// content like the image. Empty: the head has none.
	Pieces string `json:"pieces,omitempty"`
	// Index and Tree are the SHA-256 of the indices of its chunks, as one file
	// and as files, with their sizes in bytes; Digest, of both, names the
	// version. Empty: the head has none.
	Index     string `json:"index,omitempty"`
	IndexSize int64  `json:"index_size,omitempty"`
	Tree      string `json:"tree,omitempty"`
	TreeSize  int64  `json:"tree_size,omitempty"`
	Version   int    `json:"version,omitempty"`
	Digest    string `json:"digest,omitempty"`
}

// VersionDigest names what a version of an image holds: it is the SHA-256 of
// the digests of its two indices.
func VersionDigest(tree, index string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "muster image 1\ntree %s\nsquash %s\n", tree, index))
	return hex.EncodeToString(sum[:])
}

// IndexDelta begins the answer for an index: whether what follows, which
// images/delta reads, is a delta from the index that the query named with
// QueryHave (1) or from nothing (0).
const (
	QueryHave    = "have"
	IndexWhole   = 0
	IndexDelta   = 1
	QueryVersion = "version"
)

// MaxChunks bounds the chunks of one request.
const MaxChunks = 4096

// PieceSize is how many bytes of an image can be verified by themselves. The
// last piece is shorter. It is part of what is stored and cannot change.
const PieceSize = 256 << 10

// The steps of a boot, in order.
const (
	StepDHCP     = "dhcp"     // the firmware asked for an address
	StepFirmware = "firmware" // it fetched its boot script
	StepKernel   = "kernel"   // it has kernel and initrds and starts them
	StepAgent    = "agent"    // the agent made its first call
	StepEnrol    = "enrol"    // the agent has its certificate
	StepImage    = "image"    // the image is there and verified
	StepRoot     = "root"     // the root file system is ready; switching
	StepUp       = "up"       // the agent runs inside the image
)

// StepInit is no step of a boot, but stands on its timeline: an init script in
// the image failed.
const StepInit = "init"

// The steps that the head notes by itself, besides.
const (
	StepConsole = "console" // the machine said on its console that it is dead
	StepRecover = "recover" // the head switched it off and on, or gave it up
)

// Step is one stamp. Error says in words why the step failed; the machine then
// stays where it is, enterable, and tries again.
type Step struct {
	Step   string    `json:"step"`
	Time   time.Time `json:"time,omitzero"` // set by the head
	Detail string    `json:"detail,omitempty"`
	Error  string    `json:"error,omitempty"`
	Image  string    `json:"image,omitempty"` // with StepImage: the digest of the version, where the head gave one
}

// Status is the body of PUT /node/putstatus: each section that is sent
// replaces that section whole, but for the entries of the status that Keep
// names, which stay as the head has them. Where it has none it answers 409.
//
// A report that names itself (Report) may be followed by one of what changed
// Since: its status holds the entries that are new or have another value, and
// Drop names those that are no more. A head whose last report of the node is
// another one answers 409; all is sent then.
type Status struct {
	Status   map[string]any `json:"status,omitempty"`
	Hardware map[string]any `json:"hardware,omitempty"`
	Keep     []string       `json:"keep,omitempty"`
	Report   string         `json:"report,omitempty"`
	Since    string         `json:"since,omitempty"`
	Drop     []string       `json:"drop,omitempty"`
}

// KeyTime is the entry of a status that is the node's clock, in seconds since
// 1970. A head refuses reports of a clock that is off by more than MaxSkew: a
// node that knows that its is leaves the entry out.
const KeyTime = "time"

// MaxSkew is how far a node's clock may be from the head's.
const MaxSkew = 24 * time.Hour

// Hello is the first message on a link, one in each direction, as a websocket
// text message before the streams begin.
type Hello struct {
	Version int    `json:"version"`
	Agent   string `json:"agent,omitempty"` // build version
	BootID  string `json:"boot_id,omitempty"`
	InImage bool   `json:"in_image,omitempty"` // false while in the initramfs
	Stopped string `json:"stopped,omitempty"`  // the step at which a boot is held up, with its reason
	Node    string `json:"node,omitempty"`     // head → agent: UID
	Name    string `json:"name,omitempty"`     // head → agent
	// Every is how often the head wants status, in seconds.
	Every int `json:"every,omitempty"`
	// Back is over how many milliseconds the agents shall spread their return
	// where the link breaks: so many cannot all be greeted at once.
	Back int `json:"back,omitempty"`
}
