"""A process that is between grant and copy for as long as its parent likes:
python slow_writer.py SOCKET WHEN; says "writing", waits for a line, writes,
commits, and says what became of the commit. WHEN: "at once", or "back" for once
the client is connected again."""

from __future__ import annotations

import sys

from fake_daemon import PATIENCE_S
from larderd import CHUNK_TOKENS, PART_BYTES, ROOT, keys, namespace, writing
from support import eventually

from larder.client import Client, CommitChunk, CommitPart, Options
from larder.errors import LarderError
from larder.v1 import engine_pb2


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main() -> None:
    options = Options(
        socket=sys.argv[1],
        namespace=namespace(),
        credits={PART_BYTES: 1},
        call_timeout_s=PATIENCE_S,
        connect_timeout_s=PATIENCE_S,
    )
    with Client(options) as client:
        assert client.wait_ready(PATIENCE_S), client.last_error
        with writing(client) as (credit, view):
            say("writing")
            sys.stdin.readline()
            view[:] = 0xEE
        if sys.argv[2] == "back":
            eventually(lambda: client.generation > 1 and client.ready)
        chunk = CommitChunk(keys("slow", 1)[0], ROOT, 0, CHUNK_TOKENS, [CommitPart(0, credit)])
        try:
            say(engine_pb2.CommitOutcome.Name(client.commit([chunk]).result().outcomes[0]))
        except LarderError as error:
            say(str(error.kind))
        sys.stdin.readline()


if __name__ == "__main__":
    main()
