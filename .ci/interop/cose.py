"""Reads signed claims by means of its own: CBOR by cbor2 and Ed25519 by cryptography, both of which the SDK brings."""

from __future__ import annotations

import base64
from typing import Any

import cbor2
import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def read_claim(envelope: bytes, url: str) -> Any:
    """The claim in an untagged COSE_Sign1, once its signature has proved to be that of the deployment's key."""
    protected, unprotected, payload, signature = cbor2.loads(envelope)
    header = cbor2.loads(protected)
    assert header == {1: -8, 4: header[4], 16: "stack/claim+cose"}
    assert unprotected == {}
    keys = {key["kid"]: key["x"] for key in httpx.get(url + "/v1/.well-known/jwks.json").json()["keys"]}
    key = Ed25519PublicKey.from_public_bytes(unbase64(keys[header[4].decode()]))
    key.verify(signature, cbor2.dumps(["Signature1", protected, b"", payload]))
    return cbor2.loads(payload)
