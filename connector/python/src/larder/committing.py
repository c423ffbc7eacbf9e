"""Commits of slots in the arena."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

from larder.commit import CommitChunk, check_chunks
from larder.credits import Credit, CreditState, check_usable
from larder.errors import LarderError, MissError
from larder.pending import Pending
from larder.session import Session
from larder.stats import Counters
from larder.v1 import engine_pb2

_DEAD = (CreditState.REVOKED, CreditState.LOST)
_OUTCOMES = {value: name.removeprefix("COMMIT_OUTCOME_") for name, value in engine_pb2.CommitOutcome.items()}
_STORED = (engine_pb2.COMMIT_OUTCOME_KEPT, engine_pb2.COMMIT_OUTCOME_PUBLISHED)


def commit_slots(
    session: Session, counters: Counters, chunks: Sequence[CommitChunk], timeout_s: float
) -> Pending[engine_pb2.CommitReply]:
    """Hands the slots of `chunks` to the daemon. Parts whose credits died are
    refused here, as REJECTED with MISS; the others go. Raises LarderError where
    nothing was sent: then every credit is as before."""
    lengths = check_chunks(chunks, len(session.hello.parts), session.hello.limits.max_parts or 1 << 16)
    sent: list[Credit] = []
    dead: list[int] = []
    leases = session.leases
    with leases.lock:
        message = _message(chunks, sent, dead)
        for credit in sent:
            credit.state = CreditState.COMMITTING
    if not sent:
        return Pending.of(_merge(engine_pb2.CommitReply(), dead, len(lengths)))
    try:
        pending = session.ask_or_raise(
            {"commit": message},
            functools.partial(_answered, counters, dead, lengths),
            "commit",
            timeout_s,
            reserved=True,
        )
    except LarderError:
        leases.restore(sent)
        raise
    leases.committed(sent)
    return pending


def _message(chunks: Sequence[CommitChunk], sent: list[Credit], dead: list[int]) -> engine_pb2.Commit:
    """The request, with the usable credits put into `sent` and the places of
    the dead ones into `dead`. The leases' lock is held.

    Fields are set one by one: that takes half of what keyword arguments do."""
    message = engine_pb2.Commit()
    index = 0
    seen: set[int] = set()
    for chunk in chunks:
        added = message.chunks.add()
        for part, credit, length in chunk.parts:
            if credit.slot is None or credit.state in _DEAD:
                dead.append(index)
            else:
                if credit.state is not CreditState.GRANTED or id(credit) in seen:
                    check_usable(credit, twice=id(credit) in seen)
                seen.add(id(credit))
                sent.append(credit)
                written = added.parts.add()
                written.part = part
                written.length = length or credit.length
                written.slot.CopyFrom(credit.slot)
            index += 1
        if added.parts:
            added.key = chunk.key
            added.parent = chunk.parent
            added.ordinal = chunk.ordinal
            added.tokens = chunk.tokens
            added.quality = chunk.quality
        else:
            del message.chunks[-1]
    return message


def _answered(
    counters: Counters, dead: list[int], lengths: list[int], reply: engine_pb2.SessionResponse
) -> engine_pb2.CommitReply:
    merged = _merge(reply.commit, dead, len(lengths)) if dead else reply.commit
    count_outcomes(counters, merged, lengths)
    return merged


def count_outcomes(counters: Counters, reply: engine_pb2.CommitReply, lengths: Sequence[int]) -> None:
    """Counts what became of the parts of one commit."""
    counters.outcomes(Counter(_OUTCOMES.get(outcome, "UNSPECIFIED") for outcome in reply.outcomes))
    stored = sum(length for outcome, length in zip(reply.outcomes, lengths, strict=False) if outcome in _STORED)
    counters.add(bytes_stored=stored)


def _merge(reply: engine_pb2.CommitReply, dead: Sequence[int], total: int) -> engine_pb2.CommitReply:
    """The answer for all parts, out of the daemon's for those that were sent."""
    merged = engine_pb2.CommitReply()
    gone = set(dead)
    places = [i for i in range(total) if i not in gone]
    outcomes = [engine_pb2.COMMIT_OUTCOME_REJECTED] * total
    for place, outcome in zip(places, reply.outcomes, strict=False):
        outcomes[place] = outcome
    merged.outcomes.extend(outcomes)
    for sent_error in reply.errors:
        if sent_error.index < len(places):
            merged.errors.add(index=places[sent_error.index], error=sent_error.error)
    refused = MissError("the credit is no longer good; take another", "credit")
    for index in dead:
        error = merged.errors.add(index=index).error
        error.kind = int(refused.kind)  # type: ignore[assignment]
        error.message = refused.message
        error.field = refused.field
    return merged
