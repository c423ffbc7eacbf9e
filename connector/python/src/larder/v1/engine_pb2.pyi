from larder.v1 import error_pb2 as _error_pb2
from larder.v1 import part_pb2 as _part_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SCHEDULER: _ClassVar[Role]
    ROLE_WORKER: _ClassVar[Role]
    ROLE_CLIENT: _ClassVar[Role]

class ArenaMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARENA_MODE_UNSPECIFIED: _ClassVar[ArenaMode]
    ARENA_MODE_SHARED: _ClassVar[ArenaMode]
    ARENA_MODE_GUARDED: _ClassVar[ArenaMode]

class CommitOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMMIT_OUTCOME_UNSPECIFIED: _ClassVar[CommitOutcome]
    COMMIT_OUTCOME_KEPT: _ClassVar[CommitOutcome]
    COMMIT_OUTCOME_PUBLISHED: _ClassVar[CommitOutcome]
    COMMIT_OUTCOME_DUPLICATE: _ClassVar[CommitOutcome]
    COMMIT_OUTCOME_CONFLICT: _ClassVar[CommitOutcome]
    COMMIT_OUTCOME_REJECTED: _ClassVar[CommitOutcome]
ROLE_UNSPECIFIED: Role
ROLE_SCHEDULER: Role
ROLE_WORKER: Role
ROLE_CLIENT: Role
ARENA_MODE_UNSPECIFIED: ArenaMode
ARENA_MODE_SHARED: ArenaMode
ARENA_MODE_GUARDED: ArenaMode
COMMIT_OUTCOME_UNSPECIFIED: CommitOutcome
COMMIT_OUTCOME_KEPT: CommitOutcome
COMMIT_OUTCOME_PUBLISHED: CommitOutcome
COMMIT_OUTCOME_DUPLICATE: CommitOutcome
COMMIT_OUTCOME_CONFLICT: CommitOutcome
COMMIT_OUTCOME_REJECTED: CommitOutcome

class SessionRequest(_message.Message):
    __slots__ = ("id", "hello", "match", "renew_hold", "end_holds", "prefetch", "load", "release", "credits", "commit", "return_credits", "revoke_answer", "skip")
    ID_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    RENEW_HOLD_FIELD_NUMBER: _ClassVar[int]
    END_HOLDS_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    RETURN_CREDITS_FIELD_NUMBER: _ClassVar[int]
    REVOKE_ANSWER_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    id: int
    hello: Hello
    match: Match
    renew_hold: RenewHold
    end_holds: EndHolds
    prefetch: Prefetch
    load: Load
    release: Release
    credits: Credits
    commit: Commit
    return_credits: ReturnCredits
    revoke_answer: RevokeAnswer
    skip: Skip
    def __init__(self, id: _Optional[int] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., match: _Optional[_Union[Match, _Mapping]] = ..., renew_hold: _Optional[_Union[RenewHold, _Mapping]] = ..., end_holds: _Optional[_Union[EndHolds, _Mapping]] = ..., prefetch: _Optional[_Union[Prefetch, _Mapping]] = ..., load: _Optional[_Union[Load, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., credits: _Optional[_Union[Credits, _Mapping]] = ..., commit: _Optional[_Union[Commit, _Mapping]] = ..., return_credits: _Optional[_Union[ReturnCredits, _Mapping]] = ..., revoke_answer: _Optional[_Union[RevokeAnswer, _Mapping]] = ..., skip: _Optional[_Union[Skip, _Mapping]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("id", "error", "hello", "match", "renew_hold", "end_holds", "prefetch", "load", "release", "credits", "commit", "return_credits", "revoke_answer", "skip", "revoke", "draining", "epoch_changed")
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    RENEW_HOLD_FIELD_NUMBER: _ClassVar[int]
    END_HOLDS_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    RETURN_CREDITS_FIELD_NUMBER: _ClassVar[int]
    REVOKE_ANSWER_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    REVOKE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    EPOCH_CHANGED_FIELD_NUMBER: _ClassVar[int]
    id: int
    error: _error_pb2.Error
    hello: HelloReply
    match: MatchReply
    renew_hold: RenewHoldReply
    end_holds: EndHoldsReply
    prefetch: PrefetchReply
    load: LoadReply
    release: ReleaseReply
    credits: CreditsReply
    commit: CommitReply
    return_credits: ReturnCreditsReply
    revoke_answer: RevokeAnswerReply
    skip: SkipReply
    revoke: Revoke
    draining: Draining
    epoch_changed: EpochChanged
    def __init__(self, id: _Optional[int] = ..., error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ..., hello: _Optional[_Union[HelloReply, _Mapping]] = ..., match: _Optional[_Union[MatchReply, _Mapping]] = ..., renew_hold: _Optional[_Union[RenewHoldReply, _Mapping]] = ..., end_holds: _Optional[_Union[EndHoldsReply, _Mapping]] = ..., prefetch: _Optional[_Union[PrefetchReply, _Mapping]] = ..., load: _Optional[_Union[LoadReply, _Mapping]] = ..., release: _Optional[_Union[ReleaseReply, _Mapping]] = ..., credits: _Optional[_Union[CreditsReply, _Mapping]] = ..., commit: _Optional[_Union[CommitReply, _Mapping]] = ..., return_credits: _Optional[_Union[ReturnCreditsReply, _Mapping]] = ..., revoke_answer: _Optional[_Union[RevokeAnswerReply, _Mapping]] = ..., skip: _Optional[_Union[SkipReply, _Mapping]] = ..., revoke: _Optional[_Union[Revoke, _Mapping]] = ..., draining: _Optional[_Union[Draining, _Mapping]] = ..., epoch_changed: _Optional[_Union[EpochChanged, _Mapping]] = ...) -> None: ...

class Ranks(_message.Message):
    __slots__ = ("data", "pipeline", "tensor", "data_size", "pipeline_size", "tensor_size")
    DATA_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    DATA_SIZE_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_SIZE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_SIZE_FIELD_NUMBER: _ClassVar[int]
    data: int
    pipeline: int
    tensor: int
    data_size: int
    pipeline_size: int
    tensor_size: int
    def __init__(self, data: _Optional[int] = ..., pipeline: _Optional[int] = ..., tensor: _Optional[int] = ..., data_size: _Optional[int] = ..., pipeline_size: _Optional[int] = ..., tensor_size: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("major", "minor", "instance_id", "role", "ranks", "tenant", "namespace", "fingerprint", "engine", "client", "ended_sessions")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    ENDED_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    instance_id: bytes
    role: Role
    ranks: Ranks
    tenant: str
    namespace: bytes
    fingerprint: bytes
    engine: str
    client: str
    ended_sessions: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., instance_id: _Optional[bytes] = ..., role: _Optional[_Union[Role, str]] = ..., ranks: _Optional[_Union[Ranks, _Mapping]] = ..., tenant: _Optional[str] = ..., namespace: _Optional[bytes] = ..., fingerprint: _Optional[bytes] = ..., engine: _Optional[str] = ..., client: _Optional[str] = ..., ended_sessions: _Optional[_Iterable[bytes]] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("major", "minor", "session_id", "session_token", "tenant_key", "epoch", "limits", "arena", "parts", "daemon", "lane_socket")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TENANT_KEY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    ARENA_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    DAEMON_FIELD_NUMBER: _ClassVar[int]
    LANE_SOCKET_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    session_id: int
    session_token: bytes
    tenant_key: bytes
    epoch: int
    limits: Limits
    arena: ArenaInfo
    parts: _containers.RepeatedCompositeFieldContainer[_part_pb2.PartSpec]
    daemon: str
    lane_socket: str
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., session_id: _Optional[int] = ..., session_token: _Optional[bytes] = ..., tenant_key: _Optional[bytes] = ..., epoch: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., arena: _Optional[_Union[ArenaInfo, _Mapping]] = ..., parts: _Optional[_Iterable[_Union[_part_pb2.PartSpec, _Mapping]]] = ..., daemon: _Optional[str] = ..., lane_socket: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_in_flight", "max_message_bytes", "max_match_chunks", "max_parts", "max_credits", "max_holds", "hold_default_ms", "hold_max_ms", "lease_ms", "revoke_grace_ms")
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MATCH_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    MAX_PARTS_FIELD_NUMBER: _ClassVar[int]
    MAX_CREDITS_FIELD_NUMBER: _ClassVar[int]
    MAX_HOLDS_FIELD_NUMBER: _ClassVar[int]
    HOLD_DEFAULT_MS_FIELD_NUMBER: _ClassVar[int]
    HOLD_MAX_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    REVOKE_GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    max_in_flight: int
    max_message_bytes: int
    max_match_chunks: int
    max_parts: int
    max_credits: int
    max_holds: int
    hold_default_ms: int
    hold_max_ms: int
    lease_ms: int
    revoke_grace_ms: int
    def __init__(self, max_in_flight: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_match_chunks: _Optional[int] = ..., max_parts: _Optional[int] = ..., max_credits: _Optional[int] = ..., max_holds: _Optional[int] = ..., hold_default_ms: _Optional[int] = ..., hold_max_ms: _Optional[int] = ..., lease_ms: _Optional[int] = ..., revoke_grace_ms: _Optional[int] = ...) -> None: ...

class ArenaInfo(_message.Message):
    __slots__ = ("mode", "handover_socket", "segment_bytes", "write_segment_bytes")
    MODE_FIELD_NUMBER: _ClassVar[int]
    HANDOVER_SOCKET_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITE_SEGMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    mode: ArenaMode
    handover_socket: str
    segment_bytes: _containers.RepeatedScalarFieldContainer[int]
    write_segment_bytes: int
    def __init__(self, mode: _Optional[_Union[ArenaMode, str]] = ..., handover_socket: _Optional[str] = ..., segment_bytes: _Optional[_Iterable[int]] = ..., write_segment_bytes: _Optional[int] = ...) -> None: ...

class Match(_message.Message):
    __slots__ = ("root", "keys", "hold_ms", "worst_quality")
    ROOT_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    HOLD_MS_FIELD_NUMBER: _ClassVar[int]
    WORST_QUALITY_FIELD_NUMBER: _ClassVar[int]
    root: bytes
    keys: bytes
    hold_ms: int
    worst_quality: int
    def __init__(self, root: _Optional[bytes] = ..., keys: _Optional[bytes] = ..., hold_ms: _Optional[int] = ..., worst_quality: _Optional[int] = ...) -> None: ...

class MatchReply(_message.Message):
    __slots__ = ("chunks", "hold_id", "hold_deadline_ns", "tiers", "quality")
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_DEADLINE_NS_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    chunks: int
    hold_id: int
    hold_deadline_ns: int
    tiers: _containers.RepeatedCompositeFieldContainer[TierRun]
    quality: int
    def __init__(self, chunks: _Optional[int] = ..., hold_id: _Optional[int] = ..., hold_deadline_ns: _Optional[int] = ..., tiers: _Optional[_Iterable[_Union[TierRun, _Mapping]]] = ..., quality: _Optional[int] = ...) -> None: ...

class TierRun(_message.Message):
    __slots__ = ("tier", "chunks", "cost_ns", "wait_ns")
    TIER_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    COST_NS_FIELD_NUMBER: _ClassVar[int]
    WAIT_NS_FIELD_NUMBER: _ClassVar[int]
    tier: _part_pb2.Tier
    chunks: int
    cost_ns: int
    wait_ns: int
    def __init__(self, tier: _Optional[_Union[_part_pb2.Tier, str]] = ..., chunks: _Optional[int] = ..., cost_ns: _Optional[int] = ..., wait_ns: _Optional[int] = ...) -> None: ...

class Skip(_message.Message):
    __slots__ = ("hold_id", "first_chunk", "key", "load_ns", "compute_ns")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_CHUNK_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    LOAD_NS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_NS_FIELD_NUMBER: _ClassVar[int]
    hold_id: int
    first_chunk: int
    key: bytes
    load_ns: int
    compute_ns: int
    def __init__(self, hold_id: _Optional[int] = ..., first_chunk: _Optional[int] = ..., key: _Optional[bytes] = ..., load_ns: _Optional[int] = ..., compute_ns: _Optional[int] = ...) -> None: ...

class SkipReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenewHold(_message.Message):
    __slots__ = ("hold_id", "hold_ms")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_MS_FIELD_NUMBER: _ClassVar[int]
    hold_id: int
    hold_ms: int
    def __init__(self, hold_id: _Optional[int] = ..., hold_ms: _Optional[int] = ...) -> None: ...

class RenewHoldReply(_message.Message):
    __slots__ = ("hold_deadline_ns",)
    HOLD_DEADLINE_NS_FIELD_NUMBER: _ClassVar[int]
    hold_deadline_ns: int
    def __init__(self, hold_deadline_ns: _Optional[int] = ...) -> None: ...

class EndHolds(_message.Message):
    __slots__ = ("hold_ids",)
    HOLD_IDS_FIELD_NUMBER: _ClassVar[int]
    hold_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, hold_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class EndHoldsReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Prefetch(_message.Message):
    __slots__ = ("root", "keys")
    ROOT_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    root: bytes
    keys: bytes
    def __init__(self, root: _Optional[bytes] = ..., keys: _Optional[bytes] = ...) -> None: ...

class PrefetchReply(_message.Message):
    __slots__ = ("resident",)
    RESIDENT_FIELD_NUMBER: _ClassVar[int]
    resident: int
    def __init__(self, resident: _Optional[int] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("hold_id", "first_chunk", "chunks", "parts")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_CHUNK_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    hold_id: int
    first_chunk: int
    chunks: int
    parts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, hold_id: _Optional[int] = ..., first_chunk: _Optional[int] = ..., chunks: _Optional[int] = ..., parts: _Optional[_Iterable[int]] = ...) -> None: ...

class LoadReply(_message.Message):
    __slots__ = ("ready", "failed", "done", "deadline_ns")
    READY_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_NS_FIELD_NUMBER: _ClassVar[int]
    ready: _containers.RepeatedCompositeFieldContainer[LeasedPart]
    failed: _containers.RepeatedCompositeFieldContainer[FailedPart]
    done: bool
    deadline_ns: int
    def __init__(self, ready: _Optional[_Iterable[_Union[LeasedPart, _Mapping]]] = ..., failed: _Optional[_Iterable[_Union[FailedPart, _Mapping]]] = ..., done: bool = ..., deadline_ns: _Optional[int] = ...) -> None: ...

class LeasedPart(_message.Message):
    __slots__ = ("chunk", "part", "slot", "length")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    chunk: int
    part: int
    slot: _part_pb2.Slot
    length: int
    def __init__(self, chunk: _Optional[int] = ..., part: _Optional[int] = ..., slot: _Optional[_Union[_part_pb2.Slot, _Mapping]] = ..., length: _Optional[int] = ...) -> None: ...

class FailedPart(_message.Message):
    __slots__ = ("chunk", "part", "error")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    chunk: int
    part: int
    error: _error_pb2.Error
    def __init__(self, chunk: _Optional[int] = ..., part: _Optional[int] = ..., error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("load_id",)
    LOAD_ID_FIELD_NUMBER: _ClassVar[int]
    load_id: int
    def __init__(self, load_id: _Optional[int] = ...) -> None: ...

class ReleaseReply(_message.Message):
    __slots__ = ("confirmed",)
    CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    confirmed: bool
    def __init__(self, confirmed: bool = ...) -> None: ...

class Credits(_message.Message):
    __slots__ = ("want",)
    WANT_FIELD_NUMBER: _ClassVar[int]
    want: _containers.RepeatedCompositeFieldContainer[CreditRequest]
    def __init__(self, want: _Optional[_Iterable[_Union[CreditRequest, _Mapping]]] = ...) -> None: ...

class CreditRequest(_message.Message):
    __slots__ = ("length", "count")
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    length: int
    count: int
    def __init__(self, length: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class CreditsReply(_message.Message):
    __slots__ = ("granted", "limit_bytes")
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    granted: _containers.RepeatedCompositeFieldContainer[GrantedSlot]
    limit_bytes: int
    def __init__(self, granted: _Optional[_Iterable[_Union[GrantedSlot, _Mapping]]] = ..., limit_bytes: _Optional[int] = ...) -> None: ...

class GrantedSlot(_message.Message):
    __slots__ = ("slot", "deadline_ns")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_NS_FIELD_NUMBER: _ClassVar[int]
    slot: _part_pb2.Slot
    deadline_ns: int
    def __init__(self, slot: _Optional[_Union[_part_pb2.Slot, _Mapping]] = ..., deadline_ns: _Optional[int] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[CommitChunk]
    def __init__(self, chunks: _Optional[_Iterable[_Union[CommitChunk, _Mapping]]] = ...) -> None: ...

class CommitChunk(_message.Message):
    __slots__ = ("key", "parent", "ordinal", "tokens", "quality", "parts")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    parent: bytes
    ordinal: int
    tokens: int
    quality: int
    parts: _containers.RepeatedCompositeFieldContainer[CommitPart]
    def __init__(self, key: _Optional[bytes] = ..., parent: _Optional[bytes] = ..., ordinal: _Optional[int] = ..., tokens: _Optional[int] = ..., quality: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[CommitPart, _Mapping]]] = ...) -> None: ...

class CommitPart(_message.Message):
    __slots__ = ("part", "slot", "length")
    PART_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    part: int
    slot: _part_pb2.Slot
    length: int
    def __init__(self, part: _Optional[int] = ..., slot: _Optional[_Union[_part_pb2.Slot, _Mapping]] = ..., length: _Optional[int] = ...) -> None: ...

class CommitReply(_message.Message):
    __slots__ = ("outcomes", "errors")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedScalarFieldContainer[CommitOutcome]
    errors: _containers.RepeatedCompositeFieldContainer[CommitError]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[CommitOutcome, str]]] = ..., errors: _Optional[_Iterable[_Union[CommitError, _Mapping]]] = ...) -> None: ...

class CommitError(_message.Message):
    __slots__ = ("index", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    error: _error_pb2.Error
    def __init__(self, index: _Optional[int] = ..., error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ...) -> None: ...

class ReturnCredits(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedCompositeFieldContainer[_part_pb2.Slot]
    def __init__(self, slots: _Optional[_Iterable[_Union[_part_pb2.Slot, _Mapping]]] = ...) -> None: ...

class ReturnCreditsReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Revoke(_message.Message):
    __slots__ = ("grants", "load_ids")
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    LOAD_IDS_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[_part_pb2.Slot]
    load_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, grants: _Optional[_Iterable[_Union[_part_pb2.Slot, _Mapping]]] = ..., load_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class RevokeAnswer(_message.Message):
    __slots__ = ("grants", "load_ids")
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    LOAD_IDS_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[_part_pb2.Slot]
    load_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, grants: _Optional[_Iterable[_Union[_part_pb2.Slot, _Mapping]]] = ..., load_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class RevokeAnswerReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Draining(_message.Message):
    __slots__ = ("deadline_ms",)
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    deadline_ms: int
    def __init__(self, deadline_ms: _Optional[int] = ...) -> None: ...

class EpochChanged(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...
