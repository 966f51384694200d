package mockserver

import "iter"

// table keeps objects by id and in the order in which they came.
type table[T any] struct {
	byID  map[string]*T
	order []string
}

func (t *table[T]) get(id string) (*T, bool) {
	v, ok := t.byID[id]
	return v, ok
}

// find returns the object with an id, or says that there is no such thing.
func (t *table[T]) find(what, id string) (*T, error) {
	if v, ok := t.byID[id]; ok {
		return v, nil
	}
	return nil, notFound(what, id)
}

func (t *table[T]) put(id string, v *T) {
	if t.byID == nil {
		t.byID = map[string]*T{}
	}
	if _, ok := t.byID[id]; !ok {
		t.order = append(t.order, id)
	}
	t.byID[id] = v
}

func (t *table[T]) delete(id string) {
	if _, ok := t.byID[id]; !ok {
		return
	}
	delete(t.byID, id)
	if t.order[0] == id { // as it mostly is, where the oldest goes
		t.order[0], t.order = "", t.order[1:]
		return
	}
	for i, other := range t.order {
		if other == id {
			t.order = append(t.order[:i], t.order[i+1:]...)
			return
		}
	}
}

// makeRoom forgets the oldest object that is over, when there are as many as are remembered.
func (t *table[T]) makeRoom(most int, over func(*T) bool) {
	if t.len() < most {
		return
	}
	for _, id := range t.order {
		if over(t.byID[id]) {
			t.delete(id)
			return
		}
	}
}

func (t *table[T]) len() int { return len(t.order) }

// all walks the objects, oldest first.
func (t *table[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, id := range t.order {
			if !yield(t.byID[id]) {
				return
			}
		}
	}
}

// newest walks the objects, newest first.
func (t *table[T]) newest() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for i := len(t.order) - 1; i >= 0; i-- {
			if !yield(t.byID[t.order[i]]) {
				return
			}
		}
	}
}

// page cuts one page out of a sequence and counts the whole.
func page[T any](seq iter.Seq[*T], number, size int, keep func(*T) bool) (items []*T, total int) {
	first := (number - 1) * size
	for v := range seq {
		if keep != nil && !keep(v) {
			continue
		}
		if total >= first && total < first+size {
			items = append(items, v)
		}
		total++
	}
	return items, total
}
