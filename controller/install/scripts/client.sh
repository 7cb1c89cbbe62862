#!/bin/sh
# Installs muster-agent and connects it to its head: this machine becomes a
# node. To be run as root; running it again updates.
set -eu

here=@{quote .Here}
secure=@{quote .Secure}

@{template "parts" .}
@{template "choose" .}
# replace FILE: writes what it reads, whole or not at all.
replace() {
	cat >"$1.new"
	mv "$1.new" "$1"
}

configure() {
	mkdir -p /etc/muster
	replace /etc/muster/ca.pem <"$work/ca.pem"
	replace /etc/muster/agent.conf <<SETTINGS
# Read by muster-agent.service.
MUSTER_HEAD=$secure
MUSTER_AGENT_OPTIONS="--ca /etc/muster/ca.pem"
SETTINGS
}

start() {
	if ! command -v systemctl >/dev/null 2>&1; then
		echo "there is no systemd here; to start the agent: muster-agent run --head $secure --ca /etc/muster/ca.pem"
		return
	fi
	systemctl enable muster-agent.service
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		systemctl restart muster-agent.service
	else
		echo "systemd does not run now; the agent starts with the system"
	fi
}

main() {
	prepare
	choose
	echo "installing $name from $here"
	download
	install_package
	configure
	start
	echo "done. The head knows this machine by its address; if it is not a node yet:"
	echo "  muster node create --mac MAC --ip ADDRESS"
}

main "$@"
