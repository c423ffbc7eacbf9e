"""A process that is between grant and copy for as long as its parent likes:
python slow_writer.py SOCKET; says "writing", waits for a line, writes, commits,
and says what became of the commit."""

from __future__ import annotations

import sys

from larderd import CHUNK_TOKENS, PART_BYTES, ROOT, keys, namespace, take

from larder.client import Client, CommitChunk, CommitPart, Options
from larder.errors import LarderError
from larder.v1 import engine_pb2


def main() -> None:
    with Client(Options(socket=sys.argv[1], namespace=namespace(), credits={PART_BYTES: 1})) as client:
        assert client.wait_ready(20.0), client.last_error
        credit = take(client)
        with credit.writing() as view:
            sys.stdout.write("writing\n")
            sys.stdout.flush()
            sys.stdin.readline()
            view[:] = 0xEE
        chunk = CommitChunk(keys("slow", 1)[0], ROOT, 0, CHUNK_TOKENS, [CommitPart(0, credit)])
        client.wait_ready(20.0)
        try:
            outcome = engine_pb2.CommitOutcome.Name(client.commit([chunk]).result().outcomes[0])
        except LarderError as error:
            outcome = str(error.kind)
        sys.stdout.write(outcome + "\n")
        sys.stdout.flush()
        sys.stdin.readline()


if __name__ == "__main__":
    main()
