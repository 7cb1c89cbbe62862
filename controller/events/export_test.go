package events

// Count is how many subscribers there are.
func (e *Events) Count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.count
}
