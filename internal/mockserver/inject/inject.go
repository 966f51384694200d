// Package inject finds prompt injection in text: words that are meant for a language model rather than for the reader, and
// that try to take it away from its instructions. (contract: server-api 14, semantics 14)
//
// A text goes through three layers. The first matches a catalogue of phrases in five families. The second undoes what
// hides words (base64, URL and hex encoding, leetspeak, look-alike letters, invisible characters, ROT13, separators,
// reversed text), up to three deep, and runs the first on each result. The third is a [Classifier], off by default.
//
// A text that talks about attacks has their words too. So a hit that is quoted, reported or told not to be done counts one
// step less than one that addresses the model.
//
// The work is linear in the text: phrases are matched word by word within a bounded distance, an operator's own patterns
// are RE2, and all decoded text together is at most a fixed multiple of the input.
package inject

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"
	"unicode/utf8"
)

// Verdict is what a scan says of a text.
type Verdict string

// The verdicts, from the least to the worst.
const (
	Clean      Verdict = "clean"
	Suspicious Verdict = "suspicious"
	Critical   Verdict = "critical"
)

// rank orders verdicts; one that is none of the three is below all.
func (v Verdict) rank() int {
	switch v {
	case Clean:
		return 1
	case Suspicious:
		return 2
	case Critical:
		return 3
	}
	return 0
}

// The families of the catalogue, which [Match] names and [Config.SeverityOverrides] may name.
const (
	FamilyOverride   = "override"   // instruction override
	FamilyRolePlay   = "role_play"  // role-play breakout
	FamilyExtraction = "extraction" // system-prompt extraction
	FamilyJailbreak  = "jailbreak"  // named jailbreaks
	FamilyBypass     = "bypass"     // safety bypass
	FamilyCustom     = "custom"     // an operator's own patterns
	FamilyClassifier = "classifier" // the third layer
)

// The layers of decoding that [Match.Layers] names.
const (
	LayerBase64     = "base64"
	LayerURL        = "url"
	LayerHex        = "hex"
	LayerLeetspeak  = "leetspeak"
	LayerHomoglyphs = "homoglyphs"
	LayerInvisible  = "invisible"
	LayerROT13      = "rot13"
	LayerSeparators = "separators"
	LayerReversed   = "reversed"
)

// Match is the hit that decided a verdict. It has nothing of the text itself, which may hold secrets.
type Match struct {
	// PatternID is the pattern's id, such as "override.ignore_previous", an operator's own id, or "classifier".
	PatternID string
	// Family is one of the Family constants.
	Family string
	// Layers are the decodings between the text and the hit, the outermost first. Nil when the text had it plainly.
	Layers []string
	// Where is the hit's place in the content, such as ".items[2].text"; empty when the content is one text.
	Where string
}

// Result is the outcome of a scan.
type Result struct {
	Verdict Verdict
	// Match is nil when the verdict is [Clean].
	Match *Match
	// ClassifierErr says why the classifier was not heard, so that the verdict is that of the other layers. It is nil when
	// the classifier answered or was not asked.
	ClassifierErr error
}

// Classifier is the third layer: a model that judges a whole text. It must be safe for concurrent use and return when the
// context ends.
type Classifier interface {
	Classify(ctx context.Context, text string) (Verdict, error)
}

// When the classifier is asked and how long it may take. (contract: semantics 14)
const (
	classifierMinimum = 60       // characters
	classifierMaximum = 64 << 10 // bytes
	classifierTimeout = 3 * time.Second
)

// Scanner scans by one [Config]. It is safe for concurrent use.
type Scanner struct {
	config Config
	rules  []rule // of the catalogue, with this scanner's severities
	custom []custom
	excuse []custom
}

// Scan scans one text. The context bounds the classifier only.
func (s *Scanner) Scan(ctx context.Context, text string) Result {
	return s.ScanValue(ctx, text, 0)
}

// Deep is the depth for [Scanner.ScanValue] that walks everything.
const Deep = -1

// ScanValue scans the strings in a decoded JSON value, the names in objects too, each by itself, and gives the worst
// verdict. Depth is how many levels of objects and arrays are entered: 0 only takes a string, 1 takes the strings directly
// in an object or array, [Deep] takes all. A value of type []Part has parts of their own depth each. The context bounds the
// classifier only.
//
// A text of over a megabyte is scanned in pieces of that size that overlap by 64 KiB, so that the memory of a scan is
// bounded: what is hidden in one longer run of base64 may be missed where the run crosses into the next piece. The
// classifier is given the first 64 KiB of the content.
func (s *Scanner) ScanValue(ctx context.Context, v any, depth int) Result {
	if !s.config.Enabled {
		return Result{Verdict: Clean}
	}
	best := finding{verdict: Clean}
	var all strings.Builder // what the classifier would read
	var where string
	var w walker
	w.visit = func(text string) bool {
		if s.config.Classifier != nil && all.Len() < classifierMaximum {
			all.WriteString(text[:min(len(text), classifierMaximum-all.Len())])
			all.WriteByte('\n')
		}
		for piece := range pieces(text) {
			if f := s.scanText(piece); f.verdict.rank() > best.verdict.rank() {
				best, where = f, w.where()
			}
		}
		return best.verdict == Critical
	}
	w.walk(v, depth)

	result := Result{Verdict: best.verdict}
	if best.verdict != Clean {
		result.Match = &Match{PatternID: best.id, Family: best.family, Layers: best.layers, Where: where}
	}
	if best.verdict != Critical && s.config.Classifier != nil {
		s.classify(ctx, strings.ToValidUTF8(strings.TrimSuffix(all.String(), "\n"), ""), &result)
	}
	return result
}

// How long a text is scanned in one piece, and how much of it the next piece has again. In bytes.
const (
	pieceSize    = 1 << 20
	pieceOverlap = 64 << 10
)

// pieces yields a text in pieces that overlap.
func pieces(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for len(text) > pieceSize && yield(text[:pieceSize]) {
			text = text[pieceSize-pieceOverlap:]
		}
		if len(text) <= pieceSize {
			yield(text)
		}
	}
}

// classify asks the classifier about a text of enough characters. It can only make the result worse, since a text that
// talks the catalogue down could talk a model down too.
func (s *Scanner) classify(ctx context.Context, text string, result *Result) {
	if utf8.RuneCountInString(text) < classifierMinimum {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, classifierTimeout)
	defer cancel()
	verdict, err := s.config.Classifier.Classify(ctx, text)
	switch {
	case err != nil:
		result.ClassifierErr = fmt.Errorf("classifier: %w", err)
	case verdict.rank() == 0:
		result.ClassifierErr = fmt.Errorf("classifier: verdict must be clean, suspicious or critical, and was %.20q", verdict)
	case verdict.rank() > result.Verdict.rank():
		result.Verdict = verdict
		result.Match = &Match{PatternID: "classifier", Family: FamilyClassifier}
	}
}
