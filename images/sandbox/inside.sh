# The first process of its namespaces: sh -c THIS muster MODE ROOT RESOLVER CMD…
set -e
mode=$1 root=$2 resolver=$3
shift 3
mount --make-rprivate /
if [ "$mode" = bare ]; then
	mount -t proc -o nosuid,nodev,noexec proc /proc
else
	mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
	mount --bind /sys "$root/sys"
	mount -o remount,bind,ro,nosuid,nodev,noexec "$root/sys"
	mount -t tmpfs -o mode=755,nosuid dev "$root/dev"
	for node in null zero full random urandom tty; do
		: >"$root/dev/$node"
		mount --bind "/dev/$node" "$root/dev/$node"
	done
	mkdir "$root/dev/pts" "$root/dev/shm"
	mount -t devpts -o newinstance,ptmxmode=0666,mode=620,nosuid,noexec devpts "$root/dev/pts"
	mount -t tmpfs -o mode=1777,nosuid,nodev shm "$root/dev/shm"
	ln -s pts/ptmx "$root/dev/ptmx"
	ln -s /proc/self/fd "$root/dev/fd"
	ln -s fd/0 "$root/dev/stdin"
	ln -s fd/1 "$root/dev/stdout"
	ln -s fd/2 "$root/dev/stderr"
	if tty=$(tty); then # so that programs find the name of their terminal
		: >"$root/dev/console"
		mount --bind "$tty" "$root/dev/console"
	fi
	mount -t tmpfs -o mode=755,nosuid,nodev run "$root/run"
	mkdir -m 1777 "$root/run/lock"
	case $resolver in
	run/*)
		mkdir -p "$root/${resolver%/*}"
		cat /etc/resolv.conf >"$root/$resolver"
		;;
	?*) mount --bind /etc/resolv.conf "$root/$resolver" ;;
	esac
	if [ "$mode" = outside ]; then
		mount -t proc -o nosuid,nodev,noexec proc /proc
	fi
fi
set +e
if [ "$mode" = chroot ]; then
	chroot "$root" "$@"
else
	"$@"
fi
exit $?
