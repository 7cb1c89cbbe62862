package selection

import mathbits "math/bits"

// bits is a set of small numbers, which are slots of the index.
type bits []uint64

func (b bits) has(i int32) bool { return int(i>>6) < len(b) && b[i>>6]&(1<<(i&63)) != 0 }

func (b bits) count() (n int) {
	for _, word := range b {
		n += mathbits.OnesCount64(word)
	}
	return n
}

func (b bits) clear(i int32) {
	if int(i>>6) < len(b) {
		b[i>>6] &^= 1 << (i & 63)
	}
}

// set adds i and says whether it is new.
func (b *bits) set(i int32) bool {
	for int(i>>6) >= len(*b) {
		*b = append(*b, 0)
	}
	if b.has(i) {
		return false
	}
	(*b)[i>>6] |= 1 << (i & 63)
	return true
}

// queue is a set that remembers what is in it, to be worked off.
type queue struct {
	in   bits
	list []int32
}

func (q *queue) add(i int32) {
	if q.in.set(i) {
		q.list = append(q.list, i)
	}
}

// take empties it.
func (q *queue) take() []int32 {
	list := q.list
	for _, i := range list {
		q.in.clear(i)
	}
	q.list = nil
	return list
}
