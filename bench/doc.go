// Package bench measures the project beside its limits: what a thing costs is told as a ratio to the least that the same work
// can cost on the same machine, measured in the same run and in turns with it, so that a busy machine moves both. It has
// nothing to import. docs/performance.md has the figures and the commands.
//
// What has a benchmark beside its limit elsewhere has none here: passport verification beside the bare Ed25519
// (BenchmarkVerifyPassportCold at the root) and the client's check of an audit log beside the bare SHA-256
// (BenchmarkVerifyAuditChain at the root).
package bench
