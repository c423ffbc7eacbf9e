"""Commits of slots in the arena."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from larder.commit import CommitChunk, check_chunks
from larder.credits import Credit, CreditState, check_usable
from larder.errors import LarderError, MissError
from larder.pending import Pending
from larder.session import Session
from larder.stats import Counters
from larder.v1 import engine_pb2

_DEAD = (CreditState.REVOKED, CreditState.LOST)
_STORED = (engine_pb2.COMMIT_OUTCOME_KEPT, engine_pb2.COMMIT_OUTCOME_PUBLISHED)


def commit_slots(
    session: Session, counters: Counters, chunks: Sequence[CommitChunk], timeout_s: float
) -> Pending[engine_pb2.CommitReply]:
    """Hands the slots of `chunks` to the daemon. Parts whose credits died are
    refused here, as REJECTED with MISS; the others go. Raises LarderError where
    nothing was sent: then every credit is as before."""
    total = check_chunks(chunks, len(session.hello.parts), session.hello.limits.max_parts or 1 << 16)
    sent: list[Credit] = []
    dead: list[int] = []
    leases = session.leases
    with leases.lock:
        message = _message(chunks, sent, dead)
        for credit in sent:
            leases.drop_credit(credit, CreditState.COMMITTED)
    if not sent:
        return Pending.of(_merge(engine_pb2.CommitReply(), dead, total))
    lengths = [part.length or part.credit.length for chunk in chunks for part in chunk.parts]
    try:
        return session.ask_or_raise(
            {"commit": message},
            functools.partial(_answered, counters, dead, lengths),
            "commit",
            timeout_s,
            reserved=True,
        )
    except LarderError:
        for credit in sent:
            leases.restore_credit(credit)
        raise


def _message(chunks: Sequence[CommitChunk], sent: list[Credit], dead: list[int]) -> engine_pb2.Commit:
    """The request, with the usable credits put into `sent` and the places of
    the dead ones into `dead`. The leases' lock is held."""
    message = engine_pb2.Commit()
    index = 0
    seen: set[int] = set()
    for chunk in chunks:
        parts: list[engine_pb2.CommitPart] = []
        for part in chunk.parts:
            credit = part.credit
            if credit.state in _DEAD:
                dead.append(index)
            else:
                check_usable(credit, twice=id(credit) in seen)
                seen.add(id(credit))
                sent.append(credit)
                length = part.length or credit.length
                parts.append(engine_pb2.CommitPart(part=part.part, slot=credit.slot, length=length))
            index += 1
        if parts:
            message.chunks.add(
                key=chunk.key,
                parent=chunk.parent,
                ordinal=chunk.ordinal,
                tokens=chunk.tokens,
                quality=chunk.quality,
                parts=parts,
            )
    return message


def _answered(
    counters: Counters, dead: list[int], lengths: list[int], reply: engine_pb2.SessionResponse
) -> engine_pb2.CommitReply:
    merged = _merge(reply.commit, dead, len(lengths)) if dead else reply.commit
    count_outcomes(counters, merged, lengths)
    return merged


def count_outcomes(counters: Counters, reply: engine_pb2.CommitReply, lengths: Sequence[int]) -> None:
    """Counts what became of the parts of one commit."""
    stored = 0
    for outcome, length in zip(reply.outcomes, lengths, strict=False):
        counters.outcome(engine_pb2.CommitOutcome.Name(outcome).removeprefix("COMMIT_OUTCOME_"))
        if outcome in _STORED:
            stored += length
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
