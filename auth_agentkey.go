package stack

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// What an agent's token says. (contract: endpoints 4.6)
const (
	agentTokenIssuer   = "stack-sdk"
	agentTokenAudience = "stack:agent"
	agentTokenLife     = time.Minute
)

// WithAgent makes the client call as one agent, with the agent's own key: each request has a token of its own that the key
// signs and that lasts a minute. Such a client reaches only what is the agent's: its Missions, passports, proxied calls,
// credentials, drop-offs, intents and the like; other calls fail with [ErrForbidden], or [ErrNotFound] for what is another
// agent's.
//
// The key lies in ~/.stack/agents/<agentID>.json, in a file that only this user can read (mode 0600); the Python SDK finds it
// there as well, and the other way round. Where there is none, the first call makes one on this machine and enrols it with the
// API key of [WithAPIKey] or STACK_API_KEY, or with what else [New] finds; processes that do so at the same time end up with the
// same key. The API key serves for nothing else and is not needed once the agent has its key. A key that was enrolled elsewhere
// later takes this one's place: calls fail with code INVALID_AGENT_TOKEN then. Once the file is moved away, the next client makes a
// new key; a client keeps the one that it has found.
//
// Where New would ask a person to sign in, the person is asked to approve the key instead, on a page of the dashboard: at
// STACK_DASHBOARD_URL, else at http://localhost:3100 for a base URL that is plain http on a loopback address, else at
// https://getstack.run. So an API key that there is saves the person the question, also in a terminal. (contract: endpoints 4.6)
//
// It fails with a [*ParamError] for what is no agent id. The first call fails, before it is sent, with [ErrNoCredentials] when
// there is neither a key nor an API key nor a person to ask, with [ErrSignInRequired] when the person refuses or does not answer in
// five minutes, with the reason why a key file could not be read or written, and as [AgentsService.Enroll] does.
func WithAgent(agentID string) Option {
	return func(c *config) error {
		if !agentIDPattern.MatchString(agentID) {
			return &ParamError{Param: "WithAgent", Reason: fmt.Sprintf("is %q; it must be an agent's id (agt_…)",
				oneLine(agentID, maxNameText))}
		}
		c.agentID = agentID
		return nil
	}
}

// AgentEnrollParams gives an agent its key.
type AgentEnrollParams struct {
	PublicKey   PublicKeyJWK `json:"public_key"`
	ChallengeID string       `json:"challenge_id"`
	// SignedChallenge is the Ed25519 signature over the UTF-8 bytes of the challenge, in base64url without padding.
	SignedChallenge Secret `json:"signed_challenge"`
}

// LogValue gives slog the parameters without the signature.
func (p AgentEnrollParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("challenge_id", p.ChallengeID), slog.Any("signed_challenge", p.SignedChallenge))
}

// AgentEnrollment confirms that an agent has a key.
type AgentEnrollment struct {
	AgentID    string       `json:"agent_id"`
	PublicKey  PublicKeyJWK `json:"public_key"`
	EnrolledAt time.Time    `json:"enrolled_at"`
}

// EnrollmentChallenge makes a challenge for an agent that is to have a key of its own. It fails with [ErrNotFound], and with
// [ErrRateLimited] when too many challenges wait for their answer. [WithAgent] does the whole of it.
//
// POST /v1/agents/{agent_id}/enrollment-challenge
func (s *AgentsService) EnrollmentChallenge(ctx context.Context, agentID string) (*EnrollmentChallenge, error) {
	return challengeAgentKey(ctx, s.client.transport, agentID)
}

// Enroll gives an agent its key, once an answered challenge has proved that the caller holds the private half. A key that the
// agent had is of no use from then on; the same key again changes nothing. It fails with a [*ParamError], with
// [ErrInvalidRequest] also for a key that is too weak, with [ErrNotFound], with code ENROLLMENT_CHALLENGE_INVALID for a challenge
// that is unknown, used, too old or of another agent, with code ENROLLMENT_PROOF_INVALID for a signature that is not the key's,
// and with code KEY_ALREADY_ENROLLED for a key that another agent has.
//
// POST /v1/agents/{agent_id}/enroll
func (s *AgentsService) Enroll(ctx context.Context, agentID string, params AgentEnrollParams) (*AgentEnrollment, error) {
	return enrollAgentKey(ctx, s.client.transport, agentID, params)
}

func challengeAgentKey(ctx context.Context, t *transport, agentID string) (*EnrollmentChallenge, error) {
	cl := post("/v1/agents/{agent_id}/enrollment-challenge", agentID)
	cl.keyed = true // one that nobody answers does nothing
	return sendBy[EnrollmentChallenge](ctx, t, cl)
}

func enrollAgentKey(ctx context.Context, t *transport, agentID string, params AgentEnrollParams) (*AgentEnrollment, error) {
	if err := firstError(required("public_key.x", params.PublicKey.X), required("challenge_id", params.ChallengeID),
		required("signed_challenge", params.SignedChallenge.Reveal())); err != nil {
		return nil, err
	}
	return sendBy[AgentEnrollment](ctx, t, post("/v1/agents/{agent_id}/enroll", agentID).with(params))
}

// agentAuth signs a client's requests as an agent.
type agentAuth struct {
	agentID string
	enroll  *transport // calls with the developer's API key
	missing error      // why there is no API key; nil where there is one
	person  opener     // who approves where there is no API key; nil where there is one
	finding shared[*keyFile]
	key     atomic.Pointer[keyFile]
}

func newAgentAuth(agentID string, enroll *transport, missing error, person opener) *agentAuth {
	return &agentAuth{agentID: agentID, enroll: enroll, missing: missing, person: person}
}

// bearer makes a token for one request.
func (a *agentAuth) bearer(ctx context.Context) (Secret, error) {
	key := a.key.Load()
	if key == nil {
		var err error
		if key, err = a.finding.wait(ctx, a.find); err != nil {
			return Secret{}, err
		}
	}
	now := time.Now().Unix()
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the program instead
	token, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": agentTokenIssuer, "sub": a.agentID, "aud": agentTokenAudience, "iat": now, "nbf": now,
		"exp": now + int64(agentTokenLife/time.Second), "jti": fmt.Sprintf("aj_%d_%s", now, hex.EncodeToString(id[:])),
	}).SignedString(key.private)
	if err != nil {
		return Secret{}, fmt.Errorf("stack: signing as %s: %w", a.agentID, err)
	}
	return NewSecret(token), nil
}

// find finds the agent's key, and makes it where there is none.
func (a *agentAuth) find(ctx context.Context) (*keyFile, error) {
	if key := a.key.Load(); key != nil {
		return key, nil
	}
	path, err := keyPath(a.agentID)
	if err != nil {
		return nil, err
	}
	key, err := readKeyFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = a.makeKey(ctx, path)
	}
	if err != nil {
		return nil, err
	}
	if key.AgentID != a.agentID {
		return nil, fmt.Errorf("stack: key file %s is another agent's, %q; move it away to make a new key", path,
			oneLine(key.AgentID, maxNameText))
	}
	a.key.Store(key)
	return key, nil
}

// makeKey makes a key, enrols it and puts it at path. Until it is enrolled it lies beside, where other processes find it that
// do the same, and where an attempt that failed half way finds it again: so there is one key for all of them.
func (a *agentAuth) makeKey(ctx context.Context, path string) (*keyFile, error) {
	pending := a.agentID + ".pending"
	pendingPath, err := keyPath(pending)
	if err != nil {
		return nil, err
	}
	if a.missing != nil { // nothing is made that could not be enrolled
		return nil, fmt.Errorf("stack: enrolling a key for %s: %w", a.agentID, a.missing)
	}
	fresh, err := localKey(ctx, pending)
	if key, done := readKeyFile(path); done == nil { // another one has finished meanwhile
		_ = os.Remove(pendingPath)
		return key, nil
	}
	if err != nil {
		return nil, err
	}
	enrolled, err := a.enrol(ctx, fresh)
	if err != nil {
		return nil, fmt.Errorf("stack: enrolling a key for %s: %w", a.agentID, err)
	}
	if fresh.EnrolledAt, err = marshalJSON(enrolled.EnrolledAt); err != nil {
		return nil, err
	}
	fresh.AgentID = a.agentID
	if err = fresh.write(path, os.Rename); err != nil {
		return nil, err
	}
	_ = os.Remove(pendingPath)
	return fresh, nil
}

// enrol enrols a key, with the approval of a person where there is no API key.
func (a *agentAuth) enrol(ctx context.Context, key *keyFile) (*AgentEnrollment, error) {
	developer := a.enroll
	if a.person != nil {
		ticket, err := askForTicket(ctx, developer.base, a.agentID, a.person)
		if err == nil {
			err = checkKey("the ticket", ticket.Reveal())
		}
		if err != nil {
			return nil, err
		}
		developer = developer.by(always(ticket))
	}
	asked, err := challengeAgentKey(ctx, developer, a.agentID)
	if err != nil {
		return nil, err
	}
	return enrollAgentKey(ctx, developer, a.agentID, AgentEnrollParams{PublicKey: key.public(),
		ChallengeID: asked.ChallengeID, SignedChallenge: key.prove(asked.Challenge)})
}
