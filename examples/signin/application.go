package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/getstack-go/stack"
)

const (
	attemptCookie = "attempt"
	sessionCookie = "session"
	attemptLife   = 10 * time.Minute
	maxKept       = 1000 // attempts, and sessions
)

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Agents of the house</title>
{{if .Problem}}<p id="problem">{{.Problem}}</p>{{end}}
{{if .SignedIn}}<h1>Your agents</h1><ul id="agents">{{range .Agents}}<li>{{.Name}}: {{.Status}}</li>{{end}}</ul>
{{else}}<p><a id="login" href="/login">Sign in with STACK</a></p>{{end}}
</html>
`))

// application is the web application. Its users' clients are kept in memory, each under a random session id.
type application struct {
	mux      *http.ServeMux
	stackURL string
	oauth    oauth2.Config

	mu       sync.Mutex
	attempts map[string]attempt
	sessions map[string]*stack.Client
}

// attempt is a sign-in under way: the browser that began it is the one that must end it.
type attempt struct {
	state, verifier string
	begun           time.Time
}

// newApplication registers the application with the STACK server, as any OAuth client may register itself.
func newApplication(ctx context.Context, stackURL, self string) (*application, error) {
	endpoint, err := stack.OAuthEndpoint(stackURL)
	if err != nil {
		return nil, err
	}
	a := &application{mux: http.NewServeMux(), stackURL: stackURL, attempts: map[string]attempt{}, sessions: map[string]*stack.Client{},
		oauth: oauth2.Config{Endpoint: endpoint, RedirectURL: self + "/callback", Scopes: []string{"agents:read"}}}
	if a.oauth.ClientID, err = register(ctx, stackURL, a.oauth.RedirectURL); err != nil {
		return nil, err
	}
	a.mux.HandleFunc("GET /{$}", a.home)
	a.mux.HandleFunc("GET /login", a.login)
	a.mux.HandleFunc("GET /callback", a.callback)
	return a, nil
}

func register(ctx context.Context, stackURL, redirectURI string) (clientID string, err error) {
	metadata, err := json.Marshal(map[string]any{"client_name": "Agents of the house", "redirect_uris": []string{redirectURI},
		"grant_types": []string{"authorization_code", "refresh_token"}})
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, stackURL+"/oauth/register", bytes.NewReader(metadata))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	var registered struct {
		ClientID string `json:"client_id"`
	}
	if response.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("the STACK server does not register the application: %s", response.Status)
	}
	return registered.ClientID, json.NewDecoder(response.Body).Decode(&registered)
}

func (a *application) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// home shows the user's agents, or asks them to sign in.
func (a *application) home(w http.ResponseWriter, r *http.Request) {
	client := a.client(r)
	if client == nil {
		show(w, http.StatusOK, map[string]any{})
		return
	}
	agents, err := client.Agents.List(r.Context())
	if err != nil {
		show(w, http.StatusBadGateway, map[string]any{"Problem": err.Error()})
		return
	}
	show(w, http.StatusOK, map[string]any{"SignedIn": true, "Agents": agents})
}

// login sends the user to the consent page, with a challenge that only this attempt's verifier answers.
func (a *application) login(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	id, begun := rand.Text(), attempt{state: rand.Text(), verifier: oauth2.GenerateVerifier(), begun: now}
	a.mu.Lock()
	for old, other := range a.attempts {
		if now.Sub(other.begun) > attemptLife {
			delete(a.attempts, old)
		}
	}
	full := len(a.attempts) >= maxKept
	if !full {
		a.attempts[id] = begun
	}
	a.mu.Unlock()
	if full {
		show(w, http.StatusServiceUnavailable, map[string]any{"Problem": "Too many people sign in just now. Try again in some minutes."})
		return
	}
	keep(w, attemptCookie, id, attemptLife)
	http.Redirect(w, r, a.oauth.AuthCodeURL(begun.state, oauth2.S256ChallengeOption(begun.verifier)), http.StatusSeeOther)
}

// callback is where the consent page sends the user with a code, or with what went wrong.
func (a *application) callback(w http.ResponseWriter, r *http.Request) {
	begun, ok := a.takeAttempt(r)
	query := r.URL.Query()
	switch {
	case !ok || subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(begun.state)) != 1:
		show(w, http.StatusBadRequest, map[string]any{"Problem": "This sign-in was not begun here. Begin again."})
		return
	case query.Get("error") != "":
		show(w, http.StatusForbidden, map[string]any{"Problem": "You were not signed in: " + query.Get("error")})
		return
	}
	token, err := a.oauth.Exchange(r.Context(), query.Get("code"), oauth2.VerifierOption(begun.verifier))
	if err != nil {
		show(w, http.StatusBadGateway, map[string]any{"Problem": "STACK did not take the code. Begin again."})
		return
	}
	// The source outlives the request: it renews the token for as long as the session lasts.
	source := a.oauth.TokenSource(context.WithoutCancel(r.Context()), token)
	client, err := stack.New(stack.WithBaseURL(a.stackURL), stack.WithTokenSource(source))
	if err != nil {
		show(w, http.StatusInternalServerError, map[string]any{"Problem": err.Error()})
		return
	}
	id := rand.Text()
	a.mu.Lock()
	if len(a.sessions) >= maxKept {
		clear(a.sessions)
	}
	a.sessions[id] = client
	a.mu.Unlock()
	keep(w, sessionCookie, id, 12*time.Hour)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// takeAttempt finds the browser's attempt, which ends with this.
func (a *application) takeAttempt(r *http.Request) (attempt, bool) {
	cookie, err := r.Cookie(attemptCookie)
	if err != nil {
		return attempt{}, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	begun, ok := a.attempts[cookie.Value]
	delete(a.attempts, cookie.Value)
	return begun, ok && time.Since(begun.begun) <= attemptLife
}

// client is the client of the browser's user, nil for nobody.
func (a *application) client(r *http.Request) *stack.Client {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sessions[cookie.Value]
}

// keep sets a cookie that scripts cannot read. Served over https, it would be Secure as well.
func keep(w http.ResponseWriter, name, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second), HttpOnly: true,
		SameSite: http.SameSiteLaxMode})
}

func show(w http.ResponseWriter, status int, data map[string]any) {
	var text bytes.Buffer
	if err := page.Execute(&text, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes())
}
