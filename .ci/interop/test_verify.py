"""Who verifies passports from outside: headers that are refused, and the key sets of operators, which are for claims."""

from __future__ import annotations

import base64
from typing import Any

import cbor2
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from getstack import sign_claim_envelope, verify_passport_header, verify_passport_offline

from conftest import World


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_header_parameters(world: World) -> None:
    token = world.passport(world.agent().id).token
    known = {"issuer": "getstack.run", "audience": "stack:passport"}
    read = verify_passport_header([token, "ignored"], base_url=world.mock.url, **known)
    assert (read["iss"], read["aud"]) == (known["issuer"], known["audience"])
    assert verify_passport_offline(token, jwks_url=f"{world.mock.url}/v1/.well-known/jwks.json", **known) == read
    for name in known:
        with pytest.raises(ValueError, match="invalid"):
            verify_passport_header(token, base_url=world.mock.url, **{**known, name: "another"})
    for nothing in (None, [], "", [""]):
        with pytest.raises(ValueError, match="missing|empty"):
            verify_passport_header(nothing, base_url=world.mock.url)
    with pytest.raises(ValueError, match="either"):
        verify_passport_offline(token)


def test_operator_keys(world: World) -> None:
    url = f"{world.mock.url}/v1/operators/{world.mock.operator_id}/jwks.json"
    agent = world.agent()
    private = Ed25519PrivateKey.generate()
    public = {"kty": "OKP", "crv": "Ed25519", "x": base64url(private.public_key().public_bytes_raw())}
    with httpx.Client(base_url=world.mock.url, headers={"Authorization": f"Bearer {world.mock.api_key}"}) as http:
        challenge = http.post(f"/v1/agents/{agent.id}/enrollment-challenge").json()
        body = {
            "public_key": public,
            "challenge_id": challenge["challenge_id"],
            "signed_challenge": base64url(private.sign(challenge["challenge"].encode())),
        }
        http.post(f"/v1/agents/{agent.id}/enroll", json=body).raise_for_status()

    keys = {key["kid"]: key for key in httpx.get(url).json()["keys"]}  # without a login
    key: dict[str, Any] = keys[f"agent:{agent.id}:v1"]
    assert {name: key[name] for name in public} == public
    assert "d" not in key

    jwk = {**public, "d": base64url(private.private_bytes_raw())}
    envelope = sign_claim_envelope({"type": "intent"}, private_key=jwk, agent_id=agent.id)
    protected, _, payload, signature = cbor2.loads(unbase64(envelope))
    signer = keys[cbor2.loads(protected)[4].decode()]
    Ed25519PublicKey.from_public_bytes(unbase64(signer["x"])).verify(
        signature, cbor2.dumps(["Signature1", protected, b"", payload])
    )

    passport = world.passport(agent.id)
    with pytest.raises(ValueError, match="jwks lookup failed"):
        verify_passport_offline(passport.token, jwks_url=url)
    missing = httpx.get(f"{world.mock.url}/v1/operators/op_other/jwks.json")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NOT_FOUND")
