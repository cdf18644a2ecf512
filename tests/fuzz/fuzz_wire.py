"""Fuzz the control codec: mutated messages, for as many seconds as are given.

    python -m tests.fuzz.fuzz_wire SECONDS [SEED]

For any bytes, ``decode`` returns a message or raises PeerError, and a returned message can be encoded and
decodes to itself. Starts from one good message of every kind. Prints the seed, so that a finding can be had
again; exits 1 at the first one.
"""

from __future__ import annotations

import random
import sys
import time

from forwarder.errors import PeerError
from forwarder.messages import Message
from forwarder.wire import decode, encode
from tests.helpers.wire_examples import EXAMPLES

KEPT = 500


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few small changes: bits, cuts, repeats, values at the borders of msgpack's types."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + rng.randrange(8)] = b""
        elif kind == 2:
            out[at:at] = out[rng.randrange(len(out) + 1) :][: rng.randrange(16)]
        elif kind == 3 and at < len(out):
            out[at] = rng.choice(
                (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xC0, 0xC1, 0xC6, 0xCF, 0xD3, 0xDF, 0xFF)
            )
        else:
            out[at:at] = rng.randbytes(rng.randrange(9))
    return bytes(out)


def finding(data: bytes) -> str | None:
    """A fault in the decoding of ``data``."""
    try:
        message: Message = decode(data)
    except PeerError:
        return None
    except Exception as error:
        return f"decode raised {error!r}"
    again = decode(encode(message))
    # NaN is the one value that does not equal itself.
    return None if again == message or repr(again) == repr(message) else f"{message!r} became {again!r}"


def main() -> int:
    """Run until the time is over."""
    seconds = float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    rng, end, runs = random.Random(seed), time.monotonic() + seconds, 0
    corpus = [encode(message) for message in EXAMPLES]
    while time.monotonic() < end:
        data = mutate(rng.choice(corpus), rng)
        runs += 1
        problem = finding(data)
        if problem:
            print(f"seed {seed}, run {runs}: {problem}\n{data.hex()}")
            return 1
        if len(data) < 4096 and len(corpus) < KEPT and rng.random() < 0.01:
            corpus.append(data)
    print(f"wire: {runs} runs in {seconds:g} s, nothing found (seed {seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
