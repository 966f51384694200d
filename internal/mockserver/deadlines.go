package mockserver

import (
	"container/heap"
	"time"
)

// deadlines is a heap of what falls due in an operator's account. An entry is a hint: the object itself says whether its
// time has come, since checkpoints and refreshes move it.
type deadlines struct {
	heap    deadlineHeap
	earlier func() // called when the next deadline has become an earlier one
}

// deadline is something whose time may be up: fire looks, and does what is due. It is given the time for which it was set.
type deadline struct {
	at   time.Time
	fire func(at time.Time)
}

func (d *deadlines) add(at time.Time, fire func(at time.Time)) {
	first := len(d.heap) == 0 || at.Before(d.heap[0].at)
	heap.Push(&d.heap, deadline{at, fire})
	if first {
		d.earlier()
	}
}

// whenDue fires for an object that is still on record then: a deadline does not keep what was forgotten.
func whenDue[T any](t *table[T], id string, fire func(*T, time.Time)) func(at time.Time) {
	return func(at time.Time) {
		if v, ok := t.get(id); ok {
			fire(v, at)
		}
	}
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
			break
		}
		d.fire(d.at)
	}
	op.setAlarm()
}

// setAlarm has the operator swept when its next deadline comes: people are told of what falls due then, such as a checkpoint
// that did not come, though nobody calls. Where nobody is to be told, a late look is early enough.
func (op *operator) setAlarm() {
	told := op.channels.len() > 0 || op.mailroom.waiting.len() > 0
	if !told || len(op.due.heap) == 0 || op.ctx.Err() != nil {
		return
	}
	wait := op.due.heap[0].at.Sub(op.server.clock.now())
	if op.alarm == nil {
		op.alarm = time.AfterFunc(wait, op.wake)
		return
	}
	op.alarm.Reset(wait)
}

func (op *operator) wake() {
	op.mu.Lock()
	defer op.mu.Unlock()
	if op.ctx.Err() == nil {
		op.sweep(op.server.clock.now())
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
