package auth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"time"
)

// StartedBy is the name of the OS user who runs this program: the first admin
// of a new cluster. Under sudo that is root, as whom the command line then
// logs in through the socket.
func StartedBy(ctx context.Context) (string, error) { return userName(ctx, os.Getuid()) }

// userName is the OS name of a uid. A static program reads /etc/passwd by
// itself; users of LDAP and the like are only known to the C library, which
// getent asks.
func userName(ctx context.Context, uid int) (string, error) {
	id := strconv.Itoa(uid)
	u, err := user.LookupId(id)
	if err == nil {
		return u.Username, nil
	}
	var unknown user.UnknownUserIdError
	if !errors.As(err, &unknown) {
		return "", fmt.Errorf("looking up the user with uid %d: %w", uid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	line, err := exec.CommandContext(ctx, "getent", "passwd", id).Output()
	name, _, ok := strings.Cut(string(line), ":")
	if err != nil || !ok || name == "" {
		return "", fmt.Errorf("the operating system knows no user with uid %d", uid)
	}
	return name, nil
}
