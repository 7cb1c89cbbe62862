package auth

import "container/list"

// lru keeps at most max entries and forgets the one that was unused longest.
// It is not safe for concurrent use.
type lru[K comparable, V any] struct {
	max   int
	order *list.List // of entry[K, V], the latest used in front
	at    map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](max int) *lru[K, V] {
	return &lru[K, V]{max: max, order: list.New(), at: map[K]*list.Element{}}
}

func (l *lru[K, V]) get(key K) (value V, ok bool) {
	e, ok := l.at[key]
	if !ok {
		return value, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*entry[K, V]).value, true
}

func (l *lru[K, V]) put(key K, value V) {
	if e, ok := l.at[key]; ok {
		l.order.MoveToFront(e)
		e.Value.(*entry[K, V]).value = value
		return
	}
	l.at[key] = l.order.PushFront(&entry[K, V]{key, value})
	if l.order.Len() > l.max {
		last := l.order.Back()
		delete(l.at, l.order.Remove(last).(*entry[K, V]).key)
	}
}
