package stack

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/getstack-go/stack/internal/edkey"
)

// How the keys of a JWKS are kept. (contract: endpoints 5.3 for the 300 s)
const (
	keysFreshFor   = 5 * time.Minute  // then they are fetched anew in the background
	keysUsableFor  = 24 * time.Hour   // as long as fetching them anew fails
	keysFetchPause = 5 * time.Second  // at least, between the beginnings of two fetches
	keysTimeout    = 10 * time.Second // of a fetch
	maxJWKSSize    = 256 << 10
)

const jwksPath = "/v1/.well-known/jwks.json"

// operatorJWKS is the path of an operator's set, whose keys sign claims and never passports.
var operatorJWKS = regexp.MustCompile(`(?i)/operators/+[^/]+/+jwks\.json/*$`)

// keySource finds keys by their id: in a given set, or in a JWKS that it fetches. A fetch is begun by who needs it; it goes on in
// the background, and ends by itself.
type keySource struct {
	url    string // empty: good is given
	http   *http.Client
	logger *slog.Logger

	mu   sync.Mutex
	good *asked[PublicKeys] // what was fetched last
	last *asked[PublicKeys] // the last try
}

// givenKeys is the source of keys that are known.
func givenKeys(keys PublicKeys) (*keySource, error) {
	const param = "Keys"
	if len(keys) == 0 {
		return nil, &ParamError{Param: param, Reason: "is empty; give the deployment's keys, or a JWKSURL"}
	}
	keys = maps.Clone(keys)
	for _, kid := range slices.Sorted(maps.Keys(keys)) {
		keys[kid] = slices.Clone(keys[kid])
		if kid == "" {
			return nil, &ParamError{Param: param, Reason: "has a key without an id; it must have the kid of the tokens that it signs"}
		}
		if err := edkey.Check(keys[kid]); err != nil {
			return nil, &ParamError{Param: param, Reason: fmt.Sprintf("has the key %q that %s", oneLine(kid, maxNameText), err)}
		}
	}
	if err := onlyDeployment(keys); err != nil {
		return nil, &ParamError{Param: param, Reason: err.Error()}
	}
	done := make(chan struct{})
	close(done)
	return &keySource{good: &asked[PublicKeys]{done: done, value: keys}}, nil
}

// fetchedKeys is the source of the keys of a JWKS.
func fetchedKeys(jwksURL string, client *http.Client, logger *slog.Logger) (*keySource, error) {
	const param = "JWKSURL"
	u, err := url.Parse(jwksURL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, &ParamError{Param: param, Reason: "must be a URL such as " + DefaultBaseURL + jwksPath +
			", without user information and fragment"}
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, &ParamError{Param: param, Reason: "must be https, or lead to a loopback address: who can change the keys on the " +
			"way can sign passports"}
	case operatorJWKS.MatchString(u.Path):
		return nil, &ParamError{Param: param, Reason: "is the key set of an operator, which signs claims; passports are signed with " +
			"the deployment's keys, at " + jwksPath}
	}
	inner := http.Client{}
	if client != nil {
		inner = *client
	}
	inner.CheckRedirect = func(*http.Request, []*http.Request) error {
		return &redirectError{"keys come from where they are said to be"}
	}
	return &keySource{url: u.String(), http: &inner, logger: logger}, nil
}

// find returns the key of an id. It fetches the set when there is none, and anew when it does not have the id, but not more
// often than every keysFetchPause; an old set is fetched anew while it goes on serving.
func (s *keySource) find(ctx context.Context, kid string) (ed25519.PublicKey, *VerificationError) {
	if kid == "" {
		return nil, unverified(RefusedUnknownKey, "", "its header names no key (kid)")
	}
	key, last := s.look(ctx, kid)
	if key != nil {
		return key, nil
	}
	if last != nil {
		keys, err := last.wait(ctx)
		if err != nil {
			return nil, unavailable("the key set could not be fetched", err)
		}
		if key = keys[kid]; key != nil {
			return key, nil
		}
	}
	return nil, unverified(RefusedUnknownKey, "", "the deployment has no key %q", oneLine(kid, maxNameText))
}

// look returns the key if it is at hand, and else the fetch that may bring it.
func (s *keySource) look(ctx context.Context, kid string) (ed25519.PublicKey, *asked[PublicKeys]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.url == "" {
		return s.good.value[kid], nil
	}
	now := time.Now()
	if s.last != nil && s.last != s.good && s.last.answered() && s.last.err == nil {
		s.good = s.last
	}
	var key ed25519.PublicKey
	fresh := false
	if s.good != nil {
		age := now.Sub(s.good.began)
		fresh = age < keysFreshFor
		if age < keysUsableFor {
			key = s.good.value[kid]
		}
	}
	if (key == nil || !fresh) && (s.last == nil || s.last.answered() && now.Sub(s.last.began) >= keysFetchPause) {
		s.last = ask(ctx, keysTimeout, s.fetch)
	}
	return key, s.last
}

func (s *keySource) fetch(ctx context.Context) (PublicKeys, error) {
	keys, err := s.get(ctx)
	if err != nil {
		s.logger.WarnContext(ctx, "the keys of passports could not be fetched", "error", err)
	}
	return keys, err
}

func (s *keySource) get(ctx context.Context) (PublicKeys, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "getstack-go/"+Version)
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, stripURL(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read, or given up
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it was answered with %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKSSize+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxJWKSSize {
		return nil, &tooLargeError{maxJWKSSize}
	}
	keys, err := ParseJWKS(body)
	if err == nil {
		err = onlyDeployment(keys)
	}
	return keys, err
}

// onlyDeployment refuses the set of an operator, which its keys' ids give away.
func onlyDeployment(keys PublicKeys) error {
	for kid := range keys {
		if strings.HasPrefix(kid, agentKeyPrefix) {
			return errors.New("has the key of an agent, which signs claims; passports are signed with the deployment's keys")
		}
	}
	return nil
}
