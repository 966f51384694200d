package stack

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf16"
)

// keyFile is a key pair as it lies in ~/.stack/agents. The Python SDK reads and writes the same. (contract: endpoints 4.6, 4.7)
type keyFile struct {
	AgentID    string          `json:"agent_id"` // or the name of a fleet key
	PublicKey  PublicKeyJWK    `json:"publicKey"`
	PrivateKey privateKeyJWK   `json:"privateKey"`
	EnrolledAt json.RawMessage `json:"enrolled_at"` // whatever wrote it

	private ed25519.PrivateKey
}

type privateKeyJWK struct {
	PublicKeyJWK
	D Secret `json:"d"` // the 32 bytes of the seed in base64url without padding
}

// Another process may have made a key file and not have filled it yet, as the Python SDK does: it is read again so often.
const (
	keyFileTries = 20
	keyFilePause = 25 * time.Millisecond
)

// fleetKey returns the key pair of a fleet and an idempotency key, and makes it where there is none.
func fleetKey(ctx context.Context, policyID, idempotencyKey string) (*keyFile, error) {
	return localKey(ctx, fleetKeyName(policyID, idempotencyKey))
}

// localKey returns the key pair of a name, and makes it where there is none.
func localKey(ctx context.Context, name string) (*keyFile, error) {
	path, err := keyPath(name)
	if err != nil {
		return nil, err
	}
	key, err := readKeyFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeKeyFile(name, path); err != nil && !errors.Is(err, fs.ErrExist) { // an existing file wins
			return nil, err
		}
		key, err = readKeyFile(path)
	}
	for try := 1; err != nil && !errors.Is(err, fs.ErrNotExist) && try < keyFileTries; try++ {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(keyFilePause):
		}
		key, err = readKeyFile(path)
	}
	return key, err
}

// fleetKeyName is the name under which the key pair lies; it never travels.
func fleetKeyName(policyID, idempotencyKey string) string {
	sum := sha256.Sum256([]byte("[" + asciiJSON(policyID) + "," + asciiJSON(idempotencyKey) + "]"))
	return "fleet_" + hex.EncodeToString(sum[:])
}

// asciiJSON is a JSON string in which all but printable ASCII is escaped, as Python writes it.
func asciiJSON(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch short := strings.IndexRune("\b\f\n\r\t", r); {
		case short >= 0:
			b.WriteString(`\` + "bfnrt"[short:short+1])
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r >= ' ' && r <= '~':
			b.WriteRune(r)
		default:
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		}
	}
	b.WriteByte('"')
	return b.String()
}

func keyPath(name string) (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("stack: no place for keys: %w", err)
	}
	return filepath.Join(home, ".stack", "agents", name+".json"), nil
}

// makeKeyFile makes a key pair and its file. It fails with [fs.ErrExist] when another process was faster.
func makeKeyFile(name, path string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("stack: making a key: %w", err)
	}
	jwk := PublicKeyJWK{KTY: "OKP", CRV: "Ed25519", X: base64.RawURLEncoding.EncodeToString(public)}
	seed := base64.RawURLEncoding.EncodeToString(private.Seed())
	now := float64(time.Now().UnixMilli()) / 1000
	fresh := &keyFile{AgentID: name, PublicKey: jwk, PrivateKey: privateKeyJWK{jwk, NewSecret(seed)},
		EnrolledAt: fmt.Appendf(nil, "%.3f", now)}
	return fresh.write(path, os.Link)
}

// readKeyFile reads a key pair and checks that it is one. No error shows anything of the content.
func readKeyFile(path string) (*keyFile, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("stack: reading a key file: %w", err)
	}
	key := &keyFile{}
	if err := key.parse(data); err != nil {
		return nil, fmt.Errorf("stack: key file %s %w; move it away to make a new key", path, err)
	}
	return key, nil
}

func (k *keyFile) parse(data []byte) error {
	if json.Unmarshal(data, k) != nil { // the decoder's own error could quote the key
		return errors.New("is not the JSON of a key pair")
	}
	for _, jwk := range []PublicKeyJWK{k.PublicKey, k.PrivateKey.PublicKeyJWK} {
		if jwk.KTY != "OKP" || jwk.CRV != "Ed25519" {
			return errors.New("holds another kind of key than OKP and Ed25519")
		}
	}
	seed, err := base64.RawURLEncoding.Strict().DecodeString(k.PrivateKey.D.Reveal())
	if err != nil || len(seed) != ed25519.SeedSize {
		return fmt.Errorf("has a privateKey.d that is not the base64url of %d bytes", ed25519.SeedSize)
	}
	k.private = ed25519.NewKeyFromSeed(seed)
	public := base64.RawURLEncoding.EncodeToString(k.private.Public().(ed25519.PublicKey))
	if k.PublicKey.X != public || k.PrivateKey.X != public {
		return errors.New("has a public key that is not its private key's")
	}
	return nil
}

func (k *keyFile) public() PublicKeyJWK { return k.PublicKey }

// prove signs a challenge.
func (k *keyFile) prove(challenge string) Secret {
	return NewSecret(base64.RawURLEncoding.EncodeToString(ed25519.Sign(k.private, []byte(challenge))))
}

var agentIDPattern = regexp.MustCompile(`^agt_[A-Za-z0-9_-]+$`)

// keepFor writes the key pair under an agent's id as well, where that agent looks for it.
func (k *keyFile) keepFor(agentID string) error {
	if !agentIDPattern.MatchString(agentID) {
		return fmt.Errorf("stack: the server names the agent %q, which is no agent id; its key is kept as %s",
			oneLine(agentID, maxNameText), k.AgentID)
	}
	path, err := keyPath(agentID)
	if err != nil {
		return err
	}
	kept := *k
	kept.AgentID = agentID
	return kept.write(path, os.Rename)
}

// write puts the key pair into a file that appears whole, and that only this user can read. place gives the finished file
// its path: os.Link where there must be none yet, os.Rename where one is replaced.
func (k *keyFile) write(path string, place func(from, to string) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("stack: writing a key file: %w", err)
		}
	}()
	if err = os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	data, err := marshalJSON(k)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "*.tmp") // which has mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // it has been moved, or what went wrong is told
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return place(file.Name(), path)
}
