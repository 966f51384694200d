package mockserver

import (
	"container/heap"
	"time"
)

// deadlines is a heap of what falls due in an operator's account. An entry is a hint: the object itself says whether its
// time has come, since checkpoints and refreshes move it.
type deadlines struct{ heap deadlineHeap }

// deadline is something whose time may be up: fire looks, and does what is due. It is given the time for which it was set.
type deadline struct {
	at   time.Time
	fire func(at time.Time)
}

func (d *deadlines) add(at time.Time, fire func(at time.Time)) {
	heap.Push(&d.heap, deadline{at, fire})
}

// next takes out the earliest entry that is due.
func (d *deadlines) next(now time.Time) (deadline, bool) {
	if len(d.heap) == 0 || d.heap[0].at.After(now) {
		return deadline{}, false
	}
	return heap.Pop(&d.heap).(deadline), true
}

// sweep makes everything happen that fell due by now, in the order of its time. It runs before anything looks at the
// operator's state, so a late look finds what a timer would have left.
func (op *operator) sweep(now time.Time) {
	for {
		d, ok := op.due.next(now)
		if !ok {
			return
		}
		d.fire(d.at)
	}
}

type deadlineHeap []deadline

func (h deadlineHeap) Len() int           { return len(h) }
func (h deadlineHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h deadlineHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *deadlineHeap) Push(v any)        { *h = append(*h, v.(deadline)) }
func (h *deadlineHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = deadline{}
	*h = old[:len(old)-1]
	return last
}
