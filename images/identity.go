package images

// Identity are patterns, from the root, of what makes one machine itself: two
// nodes must not have the same, and as anybody on the network may read an
// image, no secret belongs into it.
func Identity() []string {
	return []string{
		// keys by which a machine, or a user of it, is known
		"etc/ssh/ssh_host_*", "root/.ssh", "home/*/.ssh/id_*", "etc/krb5.keytab", "etc/ssl/private/*", "etc/pki/tls/private/*",
		"etc/pki/consumer/*", "etc/pki/entitlement/*", "etc/munge/munge.key", "etc/wireguard/*", "etc/ipsec.secrets", "etc/swanctl/private/*",
		"var/lib/sss/db/*", "var/lib/sss/secrets/*", "var/lib/samba/private/*", "var/lib/tailscale/*", "var/lib/muster-agent", "run/muster",
		"root/.gnupg", "home/*/.gnupg/private-keys-v1.d", "root/.aws", "home/*/.aws", "root/.kube", "home/*/.kube", "root/.docker/config.json",
		"home/*/.docker/config.json", "root/.netrc", "home/*/.netrc", "root/.git-credentials", "home/*/.git-credentials", "root/.*_history", "home/*/.*_history",
		// names and seeds that must be unique
		"etc/machine-id", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "var/lib/urandom/random-seed",
		"etc/iscsi/initiatorname.iscsi", "etc/nvme/hostid", "etc/nvme/hostnqn", "etc/hostid", "var/lib/cloud/*",
		// what it learned of its network and its cards
		"var/lib/dhcp/*", "var/lib/dhclient/*", "var/lib/dhcpcd/*", "var/lib/NetworkManager/*", "etc/NetworkManager/system-connections/*",
		"etc/udev/rules.d/*-persistent-net.rules",
		// what it wrote about itself
		"var/log/journal/*", "var/lib/systemd/coredump/*", "var/crash/*",
	}
}
