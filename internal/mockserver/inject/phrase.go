package inject

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// A phrase is a row of words with bounded gaps, written as in
//
//	<drop> ~3 <prior> ~2 (instructions|prompt) now?
//
// <drop> is any word of the lexicon's list of that name, (a|b) any of the words given, ~3 that up to three other words may
// stand between, and ? that the step may be left out. A phrase lies within one sentence.
type phrase struct {
	rule  int
	steps []step
}

// step is one place in a phrase.
type step struct {
	has      []bool // by place in the lexicon
	gap      int    // how many words may stand before it
	optional bool
}

// maxSpan is the most words that a phrase may reach over.
const maxSpan = 64

// match reports whether the phrase begins at tokens[at], and the number of the token past its end. It keeps the set of
// places that the steps so far may end at as bits, so the work is bounded by the phrase.
func (p *phrase) match(tokens []token, at int) (end int, ok bool) {
	limit := min(maxSpan, len(tokens)-at)
	reach := uint64(1) // bit d is set when tokens[at+d] may be the last so far
	for _, s := range p.steps[1:] {
		spread := reach << 1
		for range s.gap {
			spread |= spread << 1
		}
		var next uint64
		for ; spread != 0; spread &= spread - 1 {
			d := bits.TrailingZeros64(spread)
			if d >= limit || tokens[at+d].sentence != tokens[at].sentence {
				break
			}
			if s.has[tokens[at+d].word] {
				next |= 1 << d
			}
		}
		if s.optional {
			next |= reach
		}
		if next == 0 {
			return 0, false
		}
		reach = next
	}
	return at + bits.TrailingZeros64(reach) + 1, true
}

// rule is a pattern of the catalogue, with the family that its id begins with.
type rule struct {
	pattern
	family string
}

// lexicon has the words that phrases and contexts ask for.
type lexicon struct {
	words map[string]entry
	list  map[string][]bool // the named lists, by place in the lexicon
	sizes [1 << 16]uint64   // by their first two bytes, which lengths words have, as bits; turned ones too
	size  int               // one more than the number of words: place 0 is that of all unknown words
}

// look returns what the lexicon knows of a word. That of most words is nothing, which their beginning and length tell.
func (l *lexicon) look(word []byte) (e entry) {
	if len(word) >= 2 && l.sizes[int(word[0])<<8|int(word[1])]>>len(word)&1 == 0 {
		return e
	}
	return l.words[string(word)]
}

// longest returns the length of the longest word, of at least two bytes and at most so many, that a text begins with; or 0.
func (l *lexicon) longest(text string, most int) int {
	if len(text) < 2 {
		return 0
	}
	sizes := l.sizes[int(text[0])<<8|int(text[1])] & (1<<(min(len(text), most)+1) - 1)
	for ; sizes != 0; sizes &^= 1 << (bits.Len64(sizes) - 1) {
		size := bits.Len64(sizes) - 1
		if l.words[text[:size]] != (entry{}) {
			return size
		}
	}
	return 0
}

// entry is what the lexicon knows of a word: its place, or that it is a word of the lexicon in disguise.
type entry struct {
	word int32
	hint hint
}

// hint says how a word must be turned to be one of the lexicon.
type hint uint8

// The hints.
const (
	hintROT13 hint = 1 << iota
	hintReversed
	hintBoth
)

// hintLength is the length from which a turned word is telling: shorter ones are too often words as they are.
const hintLength = 5

// library is the compiled catalogue.
type library struct {
	lexicon
	rules   []rule
	phrases []phrase
	starts  [][]int // the phrases that begin with a word, by its place in the lexicon
}

// catalogue compiles the built-in patterns, once. They are checked by every test, so a mistake in them is a panic.
var catalogue = sync.OnceValue(func() *library {
	l := &library{lexicon: lexicon{words: map[string]entry{}, list: map[string][]bool{}}}
	l.addWords()
	for _, p := range patterns {
		family, _, _ := strings.Cut(p.id, ".")
		l.rules = append(l.rules, rule{pattern: p, family: family})
		for _, source := range p.phrases {
			l.phrases = append(l.phrases, phrase{rule: len(l.rules) - 1, steps: l.parse(p.id, source)})
		}
	}
	l.starts = make([][]int, l.size)
	for i, p := range l.phrases {
		for word, has := range p.steps[0].has {
			if has {
				l.starts[word] = append(l.starts[word], i)
			}
		}
	}
	return l
})

// fields splits a phrase into steps, words of ideographs into one step a character.
func fields(source string) []string {
	var all []string
	for _, field := range strings.Fields(source) {
		if runes := []rune(field); isIdeographic(runes[0]) {
			for _, r := range runes {
				all = append(all, string(r))
			}
			continue
		}
		all = append(all, field)
	}
	return all
}

// parse compiles a phrase.
func (l *library) parse(id, source string) []step {
	var steps []step
	gap := 0
	for _, field := range fields(source) {
		if n, ok := strings.CutPrefix(field, "~"); ok {
			var err error
			if gap, err = strconv.Atoi(n); err != nil || gap > 12 {
				panic(fmt.Sprintf("inject: %s: bad gap %q", id, field))
			}
			continue
		}
		s := step{gap: gap, has: make([]bool, l.size)}
		field, s.optional = strings.CutSuffix(field, "?")
		if s.optional && len(steps) == 0 {
			panic(fmt.Sprintf("inject: %s: the first step cannot be left out", id))
		}
		for _, word := range strings.Split(strings.Trim(field, "()"), "|") {
			if name, ok := strings.CutPrefix(word, "<"); ok {
				list, ok := l.list[strings.TrimSuffix(name, ">")]
				if !ok {
					panic(fmt.Sprintf("inject: %s: no list %q", id, word))
				}
				for i, has := range list {
					s.has[i] = s.has[i] || has
				}
				continue
			}
			s.has[l.words[foldWord(word)].word] = true
		}
		steps, gap = append(steps, s), 0
	}
	if gap > 0 {
		panic(fmt.Sprintf("inject: %s: a gap leads nowhere in %q", id, source))
	}
	return steps
}

// addWords puts all words of the lists and phrases into the lexicon, then what they look like when turned.
func (l *lexicon) addWords() {
	next := int32(0)
	add := func(word string) int32 {
		word = foldWord(word)
		e, ok := l.words[word]
		if !ok {
			next++
			e = entry{word: next}
			l.words[word] = e
		}
		return e.word
	}
	places := map[string][]int32{}
	for name, words := range lists {
		for _, word := range strings.Fields(words) {
			places[name] = append(places[name], add(word))
		}
	}
	for _, p := range patterns {
		for _, source := range p.phrases {
			for _, field := range fields(source) {
				for _, word := range strings.Split(strings.Trim(field, "()?"), "|") {
					if !strings.HasPrefix(word, "~") && !strings.HasPrefix(word, "<") {
						add(word)
					}
				}
			}
		}
	}
	l.size = int(next) + 1
	for name, words := range places {
		l.list[name] = make([]bool, l.size)
		for _, word := range words {
			l.list[name][word] = true
		}
	}
	l.addHints()
	for word := range l.words {
		if len(word) >= 2 {
			l.sizes[int(word[0])<<8|int(word[1])] |= 1 << len(word)
		}
	}
}

// addHints puts into the lexicon what its longer words of ASCII look like in ROT13, reversed, and both.
func (l *lexicon) addHints() {
	var plain []string
	for word := range l.words {
		if len(word) >= hintLength && isASCII(word) {
			plain = append(plain, word)
		}
	}
	for _, word := range plain {
		for _, turned := range []struct {
			word string
			hint hint
		}{{rot13(word), hintROT13}, {reverse(word), hintReversed}, {rot13(reverse(word)), hintBoth}} {
			if e := l.words[turned.word]; e.word == 0 {
				e.hint |= turned.hint
				l.words[turned.word] = e
			}
		}
	}
}

// foldWord returns a word of the lexicon as [tokenize] would look it up.
func foldWord(word string) string {
	var folded []byte
	for i, r := range word {
		switch source := word[i : i+utf8.RuneLen(r)]; {
		case unicode.Is(unicode.Mn, r):
		case isIdeographic(r):
			folded = append(folded, source...)
		default:
			folded = foldRune(folded, r, source)
		}
	}
	if len(folded) == 0 || len(folded) > longestWord {
		panic(fmt.Sprintf("inject: bad word %q", word))
	}
	return string(folded)
}
