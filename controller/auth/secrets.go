package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// minOneTime is in characters. It lives a minute, for one login, behind the
	// limit on failed logins: six random ones are more than can be guessed.
	minOneTime     = 6
	maxOneTime     = 1 << 10
	oneTimeTTL     = 60 * time.Second
	oneTimePerUser = 8    // the oldest makes room
	oneTimeUsers   = 4096 // further users are refused
)

type oneTime struct {
	sum     [sha256.Size]byte
	expires time.Time
}

// secrets remembers the one-time secrets that came through the socket, hashed.
type secrets struct {
	now func() time.Time

	mu     sync.Mutex
	byUser map[string][]oneTime // oldest first
}

func newSecrets(now func() time.Time) *secrets {
	return &secrets{now: now, byUser: map[string][]oneTime{}}
}

func (s *secrets) add(user, secret string) error {
	if n := len(secret); n < minOneTime || n > maxOneTime {
		return fmt.Errorf("the secret has %d characters; give %d to %d random ones", n, minOneTime, maxOneTime)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byUser) >= oneTimeUsers {
		for other := range s.byUser {
			s.expire(other)
		}
	}
	list := s.expire(user)
	if list == nil && len(s.byUser) >= oneTimeUsers {
		return errors.New("too many logins are under way; try again in a minute")
	}
	if len(list) == oneTimePerUser {
		list = slices.Delete(list, 0, 1)
	}
	s.byUser[user] = append(list, oneTime{sha256.Sum256([]byte(secret)), s.now().Add(oneTimeTTL)})
	return nil
}

// take says whether the secret is one of the user's, and forgets it.
func (s *secrets) take(user, secret string) bool {
	sum := sha256.Sum256([]byte(secret))
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.expire(user)
	found := -1
	for i, o := range list {
		if subtle.ConstantTimeCompare(o.sum[:], sum[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return false
	}
	if list = slices.Delete(list, found, found+1); len(list) == 0 {
		delete(s.byUser, user)
	} else {
		s.byUser[user] = list
	}
	return true
}

// expire drops what is too old of a user's and gives what is left.
func (s *secrets) expire(user string) []oneTime {
	now := s.now()
	list := slices.DeleteFunc(s.byUser[user], func(o oneTime) bool { return !now.Before(o.expires) })
	if len(list) == 0 {
		delete(s.byUser, user)
		return nil
	}
	s.byUser[user] = list
	return list
}
