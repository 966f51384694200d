package inject

import (
	"slices"
	"sort"
	"strings"
)

// finding is what was found in one text and all that was decoded from it.
type finding struct {
	verdict Verdict
	id      string
	family  string
	layers  []string
}

// maxDepth is how many decodings deep a text is followed, cleaning aside.
const maxDepth = 3

// scan is the work on one text.
type scan struct {
	*Scanner
	lib    *library
	budget int // how many bytes of decoded text may still be looked at
	best   finding
}

// view is the text or something that it decodes to.
type view struct {
	text   string
	layers []string // those that led to it
	depth  int
}

// scanText scans a text and all that can be decoded from it, the shallowest first, so that no decoy deeper down keeps the
// scan from a plain encoding. The decoded text together is at most a fixed multiple of the text, so the work is linear.
func (s *Scanner) scanText(text string) finding {
	work := scan{Scanner: s, lib: catalogue(), budget: 8*len(text) + 1<<10, best: finding{verdict: Clean}}
	for queue := []view{{text: text}}; len(queue) > 0 && work.best.verdict != Critical; queue = queue[1:] {
		queue = append(queue, work.look(queue[0])...)
	}
	return work.best
}

// look scans one view, cleans it, and returns what it decodes to.
func (w *scan) look(v view) []view {
	tokens := tokenize(v.text, &w.lib.lexicon)
	w.report(v, tokens)
	for _, c := range cleaners {
		if cleaned := c.clean(v.text); cleaned != v.text {
			v = view{text: cleaned, layers: append(slices.Clip(v.layers), c.layer), depth: v.depth}
			tokens = tokenize(v.text, &w.lib.lexicon)
			w.report(v, tokens)
		}
	}
	if w.best.verdict == Critical || v.depth == maxDepth {
		return nil
	}
	var views []view
	for _, d := range decoders {
		if d.once && slices.Contains(v.layers, d.layer) {
			continue
		}
		for _, decoded := range d.decode(v.text, tokens, &w.lib.lexicon) {
			if len(decoded) <= w.budget {
				w.budget -= len(decoded)
				views = append(views, view{text: decoded, layers: append(slices.Clip(v.layers), d.layer), depth: v.depth + 1})
			}
		}
	}
	return views
}

// record keeps a hit when it is worse than what was found so far.
func (w *scan) record(v view, r rule, verdict Verdict) {
	if verdict.rank() > w.best.verdict.rank() {
		w.best = finding{verdict: verdict, id: r.id, family: r.family, layers: v.layers}
	}
}

// hit is a phrase found in a text.
type hit struct {
	rule       int
	start, end int // numbers of tokens
}

// Several suspicious hits close together weigh more than each: an attack at length seldom keeps to one phrase.
const (
	clusterSpan     = 250 // words
	clusterCritical = 3   // different patterns that make them critical
	clusterWeak     = 2   // different patterns that make weak ones count
)

// report records the hits in one text.
func (w *scan) report(v view, tokens []token) {
	for _, c := range w.custom {
		if c.expr.MatchString(v.text) {
			w.record(v, rule{pattern: pattern{id: c.id}, family: FamilyCustom}, c.severity)
		}
	}
	hits := w.hits(tokens)
	hits = append(hits, w.markers(v.text, tokens)...)
	if len(hits) == 0 {
		return
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return a.start - b.start })
	excused := w.excused(v.text)
	around := newSurroundings(tokens, w.lib)
	var suspicious []hit
	for _, h := range hits {
		r := w.rules[h.rule]
		if r.severity == Clean || excused.cover(tokens, h) {
			continue
		}
		verdict := around.weigh(h, r)
		if verdict == Suspicious && r.severity == Suspicious {
			suspicious = append(suspicious, h)
		}
		if !r.weak {
			w.record(v, r, verdict)
		}
		if verdict == Critical {
			return
		}
	}
	for i, h := range suspicious {
		r := w.rules[h.rule]
		switch n := cluster(suspicious[i:]); {
		case n >= clusterCritical:
			w.record(v, r, Critical)
			return
		case n >= clusterWeak:
			w.record(v, r, Suspicious)
		}
	}
}

// cluster returns how many different rules hit close to the first of hits, which are in order. More than enough are not
// counted.
func cluster(hits []hit) int {
	var seen [clusterCritical]int
	n := 0
	for _, h := range hits {
		if n == len(seen) || h.start-hits[0].start > clusterSpan {
			break
		}
		if !slices.Contains(seen[:n], h.rule) {
			seen[n] = h.rule
			n++
		}
	}
	return n
}

// hits returns the catalogue's hits among tokens, each rule at most once at a place.
func (w *scan) hits(tokens []token) []hit {
	var hits []hit
	for at := range tokens {
		if tokens[at].word == 0 {
			continue
		}
		for _, i := range w.lib.starts[tokens[at].word] {
			p := &w.lib.phrases[i]
			if end, ok := p.match(tokens, at); ok {
				hits = append(hits, hit{rule: p.rule, start: at, end: end})
			}
		}
	}
	return hits
}

// excuses are where a text is whitelisted: for each pattern, byte ranges that do not overlap, in order.
type excuses [][][]int

// excused returns where the text is whitelisted.
func (w *scan) excused(text string) excuses {
	var all excuses
	for _, c := range w.excuse {
		all = append(all, c.expr.FindAllStringIndex(text, -1))
	}
	return all
}

// cover reports whether a hit lies wholly inside one of the ranges.
func (e excuses) cover(tokens []token, h hit) bool {
	start, end := int(tokens[h.start].start), int(tokens[h.end-1].end)
	return slices.ContainsFunc(e, func(ranges [][]int) bool {
		after := sort.Search(len(ranges), func(i int) bool { return ranges[i][0] > start })
		return after > 0 && ranges[after-1][1] >= end
	})
}

// markers returns the hits of the signs that chat formats use, which have no words: each at the word that follows it.
func (w *scan) markers(text string, tokens []token) []hit {
	var hits []hit
	for i, r := range w.rules {
		for _, sign := range r.signs {
			if at := strings.Index(text, sign); at >= 0 && len(tokens) > 0 {
				next := sort.Search(len(tokens)-1, func(n int) bool { return int(tokens[n].start) >= at })
				hits = append(hits, hit{rule: i, start: next, end: next + 1})
			}
		}
	}
	return hits
}
