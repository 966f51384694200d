package inject

import "slices"

// surroundings judge a hit by the words around it.
type surroundings struct {
	tokens  []token
	lib     *library
	mention []int // how many words of the list "mention" stand before each token
}

// How far around a hit words count.
const (
	reportSpan  = 12 // words before it, in its sentence
	mentionSpan = 45 // words on each side
	negateSpan  = 3  // words before it
)

// How many words about attacks make a text one about attacks.
const (
	fewMentions  = 1 // beside a hit that is quoted or reported
	manyMentions = 3 // beside one that is neither
)

// newSurroundings prepares to judge the hits in a text.
func newSurroundings(tokens []token, lib *library) *surroundings {
	a := &surroundings{tokens: tokens, lib: lib, mention: make([]int, len(tokens)+1)}
	list := lib.list["mention"]
	for i, t := range tokens {
		a.mention[i+1] = a.mention[i]
		if list[t.word] {
			a.mention[i+1]++
		}
	}
	return a
}

// weigh returns what a hit counts as: as severe as its rule, or one step less when the text only talks about such a thing or
// negates it, or nothing when the text forbids it outright ("never reveal your prompt"). So words around an attack can make
// a critical hit suspicious and no less, short of words that make it no attack.
func (a *surroundings) weigh(h hit, r rule) Verdict {
	if !r.stands && a.forbidden(h) {
		return Clean
	}
	negated := !r.stands && a.before(h, negateSpan, "not")
	mentions := a.mentions(h)
	quoted := a.tokens[h.start].quoted || a.tokens[h.end-1].quoted
	reported := a.before(h, reportSpan, "report") || quoted && a.before(a.quotation(h), reportSpan, "report")
	about := negated || mentions >= manyMentions ||
		mentions >= fewMentions && (quoted || reported) ||
		quoted && reported ||
		h.end < len(a.tokens) && a.lib.list["about"][a.tokens[h.end].word]
	if !about {
		return r.severity
	}
	if r.severity == Critical {
		return Suspicious
	}
	return Clean
}

// forbidden reports whether the word right before a hit, with nothing but one space between, forbids what it says. "Why not"
// does not, nor does a second "not" before the first.
func (a *surroundings) forbidden(h hit) bool {
	if h.start == 0 {
		return false
	}
	not := a.tokens[h.start-1]
	if !a.lib.list["forbid"][not.word] || a.tokens[h.start].start-not.end != 1 {
		return false
	}
	before := hit{start: h.start - 1}
	return !a.before(before, negateSpan, "not") && !a.before(before, negateSpan, "why")
}

// quotation returns the quotation that a hit is in, up to the hit's end, as a hit.
func (a *surroundings) quotation(h hit) hit {
	for n := 0; h.start > 0 && a.tokens[h.start-1].quoted && n < longestQuote; n++ {
		h.start--
	}
	return h
}

// before reports whether a word of the list stands among so many before the hit in its sentence.
func (a *surroundings) before(h hit, span int, list string) bool {
	has := a.lib.list[list]
	return slices.ContainsFunc(a.tokens[max(0, h.start-span):h.start], func(t token) bool {
		return has[t.word] && t.sentence == a.tokens[h.start].sentence
	})
}

// mentions counts words about attacks around the hit, outside it.
func (a *surroundings) mentions(h hit) int {
	from, to := max(0, h.start-mentionSpan), min(len(a.tokens), h.end+mentionSpan)
	return a.mention[to] - a.mention[h.end] + a.mention[h.start] - a.mention[from]
}
