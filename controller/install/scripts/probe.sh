#!/bin/sh
# Finds out what this machine is, and runs the installer of muster-agent that
# the head has for it. Options are handed on.
set -eu

here=@{quote .Here}
root=@{quote .Root}

@{template "parts" .}
# processor, system and packaging print what the installer is asked for, or
# nothing where it is unknown.
processor() {
	case $(uname -m) in
	x86_64 | amd64) echo x86_64 ;;
	aarch64 | arm64) echo aarm64 ;;
	esac
}

system() {
	if [ -e /etc/sonic/sonic_version.yml ]; then
		echo sonic
		return
	fi
	[ -r /etc/os-release ] || return 0
	# shellcheck disable=SC1091
	for word in $(. /etc/os-release && echo "${ID-} ${ID_LIKE-}"); do
		case $word in
		cumulus*) echo cumulus ;;
		debian | ubuntu) echo debian ;;
		rhel | centos | fedora | rocky | almalinux | ol) echo rhel ;;
		*) continue ;;
		esac
		return
	done
}

packaging() {
	if command -v dpkg >/dev/null 2>&1; then
		echo deb
	elif command -v rpm >/dev/null 2>&1; then
		echo rpm
	else
		echo tar
	fi
}

main() {
	prepare
	query="cpu=$(processor)&os=$(system)&pkg=$(packaging)"
	echo "this machine is $query"
	fetch "$here$root/client/installer?$query" "$work/installer"
	sh "$work/installer" "$@"
}

main "$@"
