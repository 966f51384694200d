package stack

import "iter"

// pages turns numbered pages into an iterator: it ends after a page that is not full, and yields an error once and last.
func pages[T any](first int, fetch func(page int) (items []T, limit int, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for page := max(first, 1); ; page++ {
			items, limit, err := fetch(page)
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if len(items) == 0 || len(items) < limit {
				return
			}
		}
	}
}

// readAhead reads seq to its end before it yields the first item. It is for lists that an item leaves when it is dealt
// with: with a page in hand, the rest would move up by as many, and the next page begin too late.
func readAhead[T any](seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var items []T
		var failure error
		for item, err := range seq {
			if err != nil {
				failure = err
				break
			}
			items = append(items, item)
		}
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
		if failure != nil {
			var zero T
			yield(zero, failure)
		}
	}
}
