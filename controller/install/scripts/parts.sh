@{define "parts"}die() {
	echo "$0: $*" >&2
	exit 1
}

# fetch URL FILE [CURL-ARG…]: with whichever program there is.
fetch() {
	url=$1 file=$2
	if command -v curl >/dev/null 2>&1; then
		curl -fsS --retry 3 --cacert "$work/ca.pem" -o "$file" "$url" || die "cannot fetch $url"
	elif command -v wget >/dev/null 2>&1; then
		wget -q --tries=3 --ca-certificate="$work/ca.pem" -O "$file" "$url" || die "cannot fetch $url"
	else
		die "neither curl nor wget is installed"
	fi
}

prepare() {
	[ "$(id -u)" = 0 ] || die "must run as root"
	umask 022
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	trap 'exit 1' INT TERM HUP
	cat >"$work/ca.pem" <<'CERTIFICATES'
@{.CA}CERTIFICATES
}
@{end}@{define "choose"}# choose sets the package for this processor.
choose() {
	name="" pkg="" path="" sum=""
	case $(uname -m) in
@{range .Packages}@{if eq .CPU "x86_64"}	x86_64 | amd64)@{else}	aarch64 | arm64)@{end}
		name=@{quote .Name} pkg=@{quote .PkgSys} path=@{quote .Download}
		sum=@{quote .SHA256}
		;;
@{end}	*) die "the head has no package for the processor $(uname -m); there \`make packages\` builds them" ;;
	esac
}

download() {
	fetch "$here$path" "$work/$name"
	echo "$sum  $work/$name" | sha256sum -c - >/dev/null 2>&1 || die "$name did not arrive as the head has it"
}

install_package() {
	case $pkg in
	deb) dpkg -i --force-confold "$work/$name" ;;
	rpm) rpm -U --replacepkgs "$work/$name" ;;
	tar) tar -xzf "$work/$name" -C / --no-same-owner ;;
	esac
}
@{end}
