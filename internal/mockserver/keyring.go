package mockserver

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/token"
)

// keyring knows whose API keys there are, by their hashes, which keys agents have and what will give them one. Its lock is the innermost: while it is held no other is taken.
type keyring struct {
	mu    sync.RWMutex
	keys  map[keyHash]keyOwner
	hints map[string]*operator // by keyHint, to count failed authentications

	agents  map[string]*agentKey // by the agent's id
	tickets table[enrollTicket]  // by their hashes
}

type keyHash [sha256.Size]byte

// keyOwner is who a key stands for: an operator, a member of its team, or a partner whom it grants something.
type keyOwner struct {
	op       *operator
	memberID string
	grantID  string // of a partner, on the operator's account
}

const (
	apiKeyPrefix = "sk_live_"
	hintLength   = 8
)

// newAPIKey makes a key of an operator or a member. Its first characters name the operator, so that a wrong key can be
// counted against the one it was meant for.
func newAPIKey(operatorID string) string {
	return apiKeyPrefix + keyHint(operatorID) + strings.ToLower(rand.Text())
}

func keyHint(operatorID string) string { return strings.TrimPrefix(operatorID, "op_")[:hintLength] }

// add makes a key valid and returns the hash by which it is removed.
func (k *keyring) add(key string, owner keyOwner) keyHash {
	hash := hashKey(key)
	k.addHash(hash, owner)
	return hash
}

// addHash makes the key valid whose hash it is.
func (k *keyring) addHash(hash keyHash, owner keyOwner) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil {
		k.keys, k.hints = map[keyHash]keyOwner{}, map[string]*operator{}
	}
	k.keys[hash], k.hints[keyHint(owner.op.id)] = owner, owner.op
}

// sameSecret compares two texts in a time that tells nothing of where they differ.
func sameSecret(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func hashKey(key string) keyHash { return sha256.Sum256([]byte(key)) }

func (k *keyring) remove(hash keyHash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, hash)
}

func (k *keyring) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys, k.hints, k.agents, k.tickets = nil, nil, nil, table[enrollTicket]{}
}

// find returns the owner of a key, or else the operator whose key it looks like, if any.
func (k *keyring) find(key string) (owner keyOwner, known bool, suspect *operator) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	owner, known = k.keys[hashKey(key)]
	hint := strings.TrimPrefix(key, apiKeyPrefix)
	return owner, known, k.hints[hint[:min(hintLength, len(hint))]]
}

// addAgent gives an agent its key, in place of another one.
func (k *keyring) addAgent(key *agentKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.agents == nil {
		k.agents = map[string]*agentKey{}
	}
	k.agents[key.agentID] = key
}

func (k *keyring) removeAgent(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.agents, id)
}

// agent returns the key of an agent.
func (k *keyring) agent(id string) (*agentKey, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	key, ok := k.agents[id]
	return key, ok
}

// addTicket keeps a ticket. Where there are too many, the oldest goes.
func (k *keyring) addTicket(text string, t *enrollTicket, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, old := range k.tickets.byID {
		if !now.Before(old.expiresAt) {
			k.tickets.delete(id)
		}
	}
	if k.tickets.len() >= maxTickets {
		k.tickets.delete(k.tickets.order[0])
	}
	k.tickets.put(codeID(text), t)
}

// ticket returns a ticket that is still good.
func (k *keyring) ticket(text string, now time.Time) (*enrollTicket, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	t, ok := k.tickets.get(codeID(text))
	return t, ok && now.Before(t.expiresAt)
}

// useTicket uses a ticket up, unless that has happened.
func (k *keyring) useTicket(text string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.tickets.get(codeID(text))
	k.tickets.delete(codeID(text))
	return ok
}

// holder finds the operator's agent that has a public key, given as in its JWK.
func (k *keyring) holder(op *operator, x string) (agentID string, ok bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, key := range k.agents {
		if key.op == op && key.jwk.X == x {
			return key.agentID, true
		}
	}
	return "", false
}

// ofOperator lists the keys of an operator's agents in the order of their ids, which have the form of the claims' key ids.
func (k *keyring) ofOperator(op *operator) []token.JWK {
	k.mu.RLock()
	defer k.mu.RUnlock()
	list := []token.JWK{}
	for id, key := range k.agents {
		if key.op == op {
			list = append(list, token.NewJWK(stack.AgentKeyID(id), key.public))
		}
	}
	slices.SortFunc(list, func(a, b token.JWK) int { return strings.Compare(a.KeyID, b.KeyID) })
	return list
}

// owner returns the owner of the key whose hash it is.
func (k *keyring) owner(hash keyHash) (keyOwner, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	owner, ok := k.keys[hash]
	return owner, ok
}

// member returns what a member is at the moment, for the length of one request.
func (op *operator) member(id string) (stack.TeamMember, bool) {
	op.mu.Lock()
	defer op.mu.Unlock()
	m, ok := op.members.get(id)
	if !ok {
		return stack.TeamMember{}, false
	}
	return m.TeamMember, true
}
