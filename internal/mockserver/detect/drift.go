package detect

import (
	"fmt"
	"hash/maphash"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
)

// Novelty in hundredths, so that a total is exact. (contract: decisions, Scope drift)
const (
	noveltyNewPath     = 25
	noveltyNewHost     = 60
	noveltyNewClass    = 25 // added to one of the above
	noveltyUndeclared  = 80
	noveltyOutOfScope  = 100
	driftSingleFire    = 80
	driftTotalFire     = 200
	maxDriftRemembered = 1024
)

// Call is one proxied call as Drift sees it.
type Call struct {
	Service string
	Host    string // with the port, when the URL has one
	Method  string
	Path    string // unescaped, as in url.URL.Path
}

// Drift scores how far the calls of one passport move away from what its Mission declared and what it has done before.
//
// The novelty of a call is that of its best match:
//
//	the first call ever on a declared service                    0.00  its host and path are what the declaration stood for
//	same service, host, method and path template                 0.00
//	same service and host, another path, or a path's new method  0.25
//	same service, another host                                   0.60
//	first call on a service granted but not declared             0.80
//	a service neither declared nor granted                       1.00  nothing matches, and nothing is remembered of it
//
// The first write on a service where only reads were seen adds 0.25; the first call on a service is never a new class.
//
// It remembers at most 1024 hosts and paths, as 64-bit hashes. Past that a new one is scored as new each time it comes; the
// finding is not affected, because everything remembered beyond the first call on a declared service costs at least 0.25,
// so that the detector has fired long before.
type Drift struct {
	services map[string]*driftService // declared and granted ones only
	seed     maphash.Seed
	seen     map[uint64]struct{} // hashes of driftKey
	total    int
	fired    bool
}

type driftService struct {
	declared, used, wrote bool
}

type driftKey struct {
	service, host, method, path string // method and path empty: the host itself
}

// NewDrift begins a passport's record with the services that its Mission's intent declared and those it was granted. For a
// passport without an intent, where there is nothing to drift away from, pass the granted services as declared.
func NewDrift(declared, granted []string) *Drift {
	d := &Drift{services: map[string]*driftService{}, seed: maphash.MakeSeed(), seen: map[uint64]struct{}{}}
	for _, s := range granted {
		d.services[s] = &driftService{}
	}
	for _, s := range declared {
		d.services[s] = &driftService{declared: true}
	}
	return d
}

// Observe scores a call, remembers it, and answers its novelty between 0 and 1. The finding is nil, except for the one call
// with which the passport's total reaches 2.00 or whose own novelty is at least 0.80; it is answered once per passport.
func (d *Drift) Observe(c Call) (novelty float64, finding *Finding) {
	c.Method = strings.ToUpper(c.Method)
	c.Host = driftHost(c.Host)
	c.Path = pathTemplate(c.Path)
	n := d.score(c)
	d.total += n
	if d.fired || n < driftSingleFire && d.total < driftTotalFire {
		return hundredths(n), nil
	}
	d.fired = true
	f := &Finding{
		Signal:   ScopeDrift,
		Severity: ScopeDrift.Severity(""),
		Metadata: map[string]any{
			"novelty": hundredths(n), "total_novelty": hundredths(d.total), "service": shown(c.Service),
			"host": shown(c.Host), "method": shown(c.Method), "path_template": shown(c.Path),
		},
	}
	if n >= driftSingleFire {
		f.Detail = fmt.Sprintf("single_call_%.2f", hundredths(n))
		f.Message = fmt.Sprintf("One call to %s is far from what the Mission declared (novelty %.2f).",
			shown(c.Service), hundredths(n))
	} else {
		f.Detail = fmt.Sprintf("cumulative_%.2f", hundredths(d.total))
		f.Message = fmt.Sprintf("The calls have drifted away from what the Mission declared (total novelty %.2f).",
			hundredths(d.total))
	}
	return hundredths(n), f
}

// Predict answers what Observe would, and the total after the call, without remembering it.
func (d *Drift) Predict(c Call) (novelty, total float64, finding *Finding) {
	trial := *d
	trial.seen, trial.services = maps.Clone(d.seen), map[string]*driftService{}
	for name, s := range d.services {
		known := *s
		trial.services[name] = &known
	}
	novelty, finding = trial.Observe(c)
	return novelty, trial.Total(), finding
}

// Total is the novelty of all calls so far.
func (d *Drift) Total() float64 { return hundredths(d.total) }

// score gives the call's novelty in hundredths and remembers the call.
func (d *Drift) score(c Call) int {
	s := d.services[c.Service]
	if s == nil {
		return noveltyOutOfScope
	}
	newHost := d.remember(driftKey{service: c.Service, host: c.Host})
	newPath := d.remember(driftKey{c.Service, c.Host, c.Method, c.Path})
	first, write := !s.used, isWrite(c.Method)
	newClass := write && !s.wrote && !first
	s.used, s.wrote = true, s.wrote || write

	n := 0
	switch {
	case first && !s.declared:
		n = noveltyUndeclared
	case first:
	case newHost:
		n = noveltyNewHost
	case newPath:
		n = noveltyNewPath
	}
	if newClass {
		n += noveltyNewClass
	}
	return n
}

// remember says whether k is new.
func (d *Drift) remember(k driftKey) bool {
	h := maphash.Comparable(d.seed, k)
	if _, ok := d.seen[h]; ok {
		return false
	}
	if len(d.seen) < maxDriftRemembered {
		d.seen[h] = struct{}{}
	}
	return true
}

func hundredths(n int) float64 { return float64(n) / 100 }

func isWrite(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	return true
}

// driftHost makes the spellings of one host one: lower case, no closing dot, no default port.
func driftHost(host string) string {
	host = strings.ToLower(host)
	host = strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":80")
	return strings.TrimSuffix(host, ".")
}

const idPlaceholder = "{id}"

// pathTemplate replaces the ids in a path, so that /repos/1 and /repos/2 are one template. A segment is an id when it
//
//   - holds a digit and is not a version (v1, v2.1, v1beta2, 1.0): numbers, UUIDs, hashes, ULIDs, dates, most file names;
//   - holds an @ after its first character: mail addresses;
//   - is at least 16 hexadecimal digits, or at least 26 letters of one case: tokens that happen to hold no digit.
//
// A verb after a colon, as in /docs/1a2b:batchUpdate, stays. Duplicate and closing slashes and dot segments are removed.
func pathTemplate(p string) string {
	p = path.Clean("/" + p)
	segments := strings.Split(p, "/")
	for i, segment := range segments {
		head, verb := segment, ""
		if at := strings.LastIndexByte(segment, ':'); at > 0 && isLetters(segment[at+1:]) {
			head, verb = segment[:at], segment[at:]
		}
		if isID(head) {
			segments[i] = idPlaceholder + verb
		}
	}
	return strings.Join(segments, "/")
}

func isID(s string) bool {
	if isVersion(s) {
		return false
	}
	var digit, other, notHex, upper, lower bool
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digit = true
		case c >= 'a' && c <= 'z':
			lower = true
			notHex = notHex || c > 'f'
		case c >= 'A' && c <= 'Z':
			upper = true
			notHex = notHex || c > 'F'
		case c == '@' && i > 0:
			return true
		default:
			other = true
		}
	}
	oneCase := !other && upper != lower
	return digit || !other && !notHex && len(s) >= 16 || oneCase && len(s) >= 26
}

// isVersion reports v1, v2.1, v1beta2, v3alpha and 1.0, but not a bare number.
func isVersion(s string) bool {
	rest, v := strings.CutPrefix(strings.ToLower(s), "v")
	for _, stage := range []string{"alpha", "beta", "rc"} {
		if number, after, ok := strings.Cut(rest, stage); v && ok && isDigits(number) && len(number) <= 2 &&
			(after == "" || isDigits(after) && len(after) <= 2) {
			return true
		}
	}
	parts := strings.Split(rest, ".")
	if len(parts) > 3 || !v && len(parts) == 1 {
		return false
	}
	return !slices.ContainsFunc(parts, func(part string) bool { return !isDigits(part) || len(part) > 3 })
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func isLetters(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
}
