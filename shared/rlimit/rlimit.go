// Package rlimit lets a process with very many connections have as many open
// files as the system allows it.
//
// It must not be used on nodes by what runs commands of users: they inherit the
// limit.
package rlimit

import "golang.org/x/sys/unix"

// Files raises the limit of open files to want, the hard one too where the
// process may do that, and gives what it is then: as much as can be had.
func Files(want uint64) (uint64, error) {
	var is unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &is); err != nil {
		return 0, err
	}
	for _, try := range []unix.Rlimit{{Cur: want, Max: max(want, is.Max)}, {Cur: min(want, is.Max), Max: is.Max}} {
		if try.Cur <= is.Cur {
			break
		}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &try) == nil {
			is = try
		}
	}
	return is.Cur, nil
}
