#!/bin/sh
# Installs muster on this server and makes it a head beside an existing one.
#
# scyld-install [--name NAME] [--data DIR] [--fingerprint SHA256]
#               [--password-file FILE] [--token-file FILE] [--no-start]
#
# --fingerprint    what `muster` shows on the existing head as its authority's
#                  SHA-256; without it the certificate that came with this
#                  script is trusted
# --password-file  holds the cluster's password, cluster-password in the data
#                  directory of the existing head; without it it is asked for
# --token-file     holds an access token of an admin who may write heads, with
#                  which this server is made known to the existing head
# --no-start       only install and configure
set -eu

here=@{quote .Here}
root=@{quote .Root}
secure=@{quote .Secure}
authority=@{quote .Fingerprint}

@{template "parts" .}
@{template "choose" .}
arguments() {
	host=$(uname -n) data=/var/lib/muster fingerprint='' password_file='' token_file='' start=yes
	while [ $# -gt 0 ]; do
		case $1 in
		--no-start)
			start=no
			shift
			continue
			;;
		--name | --data | --fingerprint | --password-file | --token-file) [ $# -gt 1 ] || die "$1 needs a value" ;;
		*) die "unknown option $1" ;;
		esac
		case $1 in
		--name) host=$2 ;;
		--data) data=$2 ;;
		--fingerprint) fingerprint=$(printf %s "${2#sha256:}" | tr -d : | tr A-F a-f) ;;
		--password-file) password_file=$2 ;;
		--token-file) token_file=$2 ;;
		esac
		shift 2
	done
	case $host in *[!A-Za-z0-9.-]* | '') die "--name '$host' is no host name" ;; esac
	case $data in *[!A-Za-z0-9./_-]* | [!/]* | '') die "--data '$data' must be an absolute path of letters, digits and . _ -" ;; esac
	command -v curl >/dev/null 2>&1 || die "needs curl"
}

# trust compares the authority that came along with the one that was named.
trust() {
	sum=$(sed -n '/-BEGIN/,/-END/p;/-END/q' "$work/ca.pem" | sed '/^-/d' | base64 -d | sha256sum | cut -d' ' -f1)
	[ "$sum" = "$authority" ] || die "the certificate in this script is damaged"
	if [ -z "$fingerprint" ]; then
		echo "trusting the authority with the SHA-256 $sum"
	elif [ "$sum" != "$fingerprint" ]; then
		die "the head's authority has the SHA-256 $sum, not $fingerprint: this is another head"
	fi
}

# ask FILE METHOD PATH: sends FILE to the existing head, over TLS that it proves itself in.
ask() {
	curl -sS --cacert "$work/ca.pem" -H @"$work/header" -H 'Content-Type: application/json' -X "$2" --data-binary @"$1" "$secure$3"
}

# verify has the password checked. It is in no command line.
verify() {
	if [ -n "$password_file" ]; then
		password=$(cat "$password_file")
	else
		printf 'Password of the cluster: ' >/dev/tty
		stty -echo </dev/tty
		IFS= read -r password </dev/tty
		stty echo </dev/tty
		echo >/dev/tty
	fi
	: >"$work/header"
	(
		umask 077
		printf '{"admin_pass":"%s"}' "$(printf %s "$password" | sed 's/[\\"]/\\&/g')" >"$work/password"
	)
	answer=$(ask "$work/password" POST "$root/password") || die "cannot reach $secure"
	case $answer in
	*'"success": true'* | *'"success":true'*) ;;
	*) die "the head refuses: $answer" ;;
	esac
}

configure() {
	mkdir -p /etc/muster "$data"
	chmod 711 "$data"
	cp "$work/ca.pem" /etc/muster/cluster-ca.pem
	if [ ! -e /etc/muster/muster.toml ]; then
		printf 'name = "%s"\ndata = "%s"\n' "$host" "$data" >/etc/muster/muster.toml.new
		mv /etc/muster/muster.toml.new /etc/muster/muster.toml
	fi
	# What the head asks about passwords.
	[ ! -d /etc/pam.d ] || [ -e /etc/pam.d/muster ] || muster-pam --pam-file >/etc/pam.d/muster
}

launch() {
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		systemctl enable --now muster.service
		tries=0
		until MUSTER_DATA=$data muster head ls >/dev/null 2>&1; do
			tries=$((tries + 1))
			[ $tries -lt 60 ] || die "muster does not start: journalctl -u muster"
			sleep 1
		done
		return
	fi
	MUSTER_DATA=$data muster head ls >/dev/null 2>&1 ||
		die "installed, but there is no systemd here to start it: run 'muster serve --config /etc/muster/muster.toml', then this script again"
}

# field KEY: the JSON value of one of this head's own fields, as it is written.
field() {
	sed -n 's/^  "'"$1"'": \(".*"\),\{0,1\}$/\1/p' "$work/self"
}

# register makes this server known to the existing head.
register() {
	[ -n "$token_file" ] || die "running; to make it known to $secure give --token-file"
	MUSTER_DATA=$data muster -o json head get "$(cat "$data/head-uid")" >"$work/self" || die "this head does not tell who it is"
	(
		umask 077
		printf 'Authorization: Bearer %s\n' "$(cat "$token_file")" >"$work/header"
	)
	{
		printf '{"uid":%s,"name":%s,"ssh_public":%s' "$(field uid)" "$(field name)" "$(field ssh_public)"
		for key in ca_pem peer_url; do
			value=$(field "$key")
			[ -z "$value" ] || printf ',"%s":%s' "$key" "$value"
		done
		printf '}'
	} >"$work/record"
	answer=$(ask "$work/record" POST /api/v1/heads) || die "cannot reach $secure"
	case $answer in
	*'"success": true'* | *'"success":true'*) ;;
	*) die "the head refuses: $answer" ;;
	esac
	echo "$secure knows this server as a head now"
}

main() {
	arguments "$@"
	prepare
	trust
	verify
	choose
	echo "installing $name"
	download
	install_package
	configure
	if [ "$start" = no ]; then
		echo "installed; to start it: muster serve --config /etc/muster/muster.toml"
		return
	fi
	launch
	register
}

main "$@"
