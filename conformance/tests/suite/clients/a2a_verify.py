"""The official SDK's verifier of cards: reads card.json and keys.json, prints `ok` or why not."""
import json
from a2a.client.card_resolver import parse_agent_card
from a2a.utils.signing import SignatureVerificationError, create_signature_verifier
from jwt.api_jwk import PyJWKSet
from jwt.exceptions import PyJWTError

keys = PyJWKSet.from_json(open("keys.json").read())


def key(kid, jku):
    for known in keys.keys:
        if known.key_id == kid:
            return known
    raise PyJWTError("no such key")


try:
    create_signature_verifier(key, ["ES256"])(parse_agent_card(json.load(open("card.json"))))
    print("ok")
except SignatureVerificationError as e:
    print(e)
