package stack

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
)

// Hash returns the EntryHash that the row should have by its content: the SHA-256, in lower-case hex, of what JavaScript's
// JSON.stringify gives for the object {entry_id, timestamp, operator_id, agent_id, layer, action, outcome, prev_entry_hash}.
// The timestamp is in epoch milliseconds; the agent id of a row without an agent is the empty string, as it is in the row's
// own JSON. (contract: server-api 20)
func (e AuditEntry) Hash() string {
	b := make([]byte, 0, 512) // on the stack, and enough for any usual row
	b = appendJSONString(append(b, `{"entry_id":`...), e.EntryID)
	b = strconv.AppendInt(append(b, `,"timestamp":`...), e.Timestamp.UnixMilli(), 10)
	b = appendJSONString(append(b, `,"operator_id":`...), e.OperatorID)
	b = appendJSONString(append(b, `,"agent_id":`...), e.AgentID)
	b = appendJSONString(append(b, `,"layer":`...), e.Layer)
	b = appendJSONString(append(b, `,"action":`...), e.Action)
	b = appendJSONString(append(b, `,"outcome":`...), string(e.Outcome))
	b = appendJSONString(append(b, `,"prev_entry_hash":`...), e.PrevEntryHash)
	b = append(b, '}')
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// appendJSONString appends s, which is valid UTF-8, as JSON.stringify writes it. encoding/json cannot be had to: it escapes
// U+2028 and U+2029.
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ':
			b = append(b, c)
		case c == '\b':
			b = append(b, `\b`...)
		case c == '\f':
			b = append(b, `\f`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		default:
			const digits = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&0xf])
		}
	}
	return append(b, '"')
}
