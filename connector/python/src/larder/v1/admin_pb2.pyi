from larder.v1 import part_pb2 as _part_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("version", "uptime_ms", "state", "sessions", "host", "counters", "tiers")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_MS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    version: str
    uptime_ms: int
    state: str
    sessions: _containers.RepeatedCompositeFieldContainer[SessionStatus]
    host: HostTierStatus
    counters: Counters
    tiers: _containers.RepeatedCompositeFieldContainer[TierStatus]
    def __init__(self, version: _Optional[str] = ..., uptime_ms: _Optional[int] = ..., state: _Optional[str] = ..., sessions: _Optional[_Iterable[_Union[SessionStatus, _Mapping]]] = ..., host: _Optional[_Union[HostTierStatus, _Mapping]] = ..., counters: _Optional[_Union[Counters, _Mapping]] = ..., tiers: _Optional[_Iterable[_Union[TierStatus, _Mapping]]] = ...) -> None: ...

class TierStatus(_message.Message):
    __slots__ = ("tier", "device", "state", "why", "budget", "used", "chunks", "parts", "hits", "misses", "read_bytes", "written_bytes", "device_bytes", "queue", "errors", "corrupt", "evicted_chunks", "pinned", "pin_limit", "codec")
    TIER_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    MISSES_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    CORRUPT_FIELD_NUMBER: _ClassVar[int]
    EVICTED_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    PIN_LIMIT_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    tier: _part_pb2.Tier
    device: str
    state: str
    why: str
    budget: int
    used: int
    chunks: int
    parts: int
    hits: int
    misses: int
    read_bytes: int
    written_bytes: int
    device_bytes: int
    queue: int
    errors: int
    corrupt: int
    evicted_chunks: int
    pinned: int
    pin_limit: int
    codec: str
    def __init__(self, tier: _Optional[_Union[_part_pb2.Tier, str]] = ..., device: _Optional[str] = ..., state: _Optional[str] = ..., why: _Optional[str] = ..., budget: _Optional[int] = ..., used: _Optional[int] = ..., chunks: _Optional[int] = ..., parts: _Optional[int] = ..., hits: _Optional[int] = ..., misses: _Optional[int] = ..., read_bytes: _Optional[int] = ..., written_bytes: _Optional[int] = ..., device_bytes: _Optional[int] = ..., queue: _Optional[int] = ..., errors: _Optional[int] = ..., corrupt: _Optional[int] = ..., evicted_chunks: _Optional[int] = ..., pinned: _Optional[int] = ..., pin_limit: _Optional[int] = ..., codec: _Optional[str] = ...) -> None: ...

class SessionStatus(_message.Message):
    __slots__ = ("session_id", "instance_id", "role", "engine", "tenant", "namespace", "pid", "credits", "leases", "holds", "age_ms", "tensor_rank", "credit_bytes", "credit_limit", "short_grants", "lane")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    TENSOR_RANK_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREDIT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    SHORT_GRANTS_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    instance_id: str
    role: str
    engine: str
    tenant: str
    namespace: str
    pid: int
    credits: int
    leases: int
    holds: int
    age_ms: int
    tensor_rank: int
    credit_bytes: int
    credit_limit: int
    short_grants: int
    lane: bool
    def __init__(self, session_id: _Optional[int] = ..., instance_id: _Optional[str] = ..., role: _Optional[str] = ..., engine: _Optional[str] = ..., tenant: _Optional[str] = ..., namespace: _Optional[str] = ..., pid: _Optional[int] = ..., credits: _Optional[int] = ..., leases: _Optional[int] = ..., holds: _Optional[int] = ..., age_ms: _Optional[int] = ..., tensor_rank: _Optional[int] = ..., credit_bytes: _Optional[int] = ..., credit_limit: _Optional[int] = ..., short_grants: _Optional[int] = ..., lane: bool = ...) -> None: ...

class HostTierStatus(_message.Message):
    __slots__ = ("budget", "used", "granted", "leased", "quarantined", "chunks", "parts", "pending_chunks", "mode", "verify", "prefaulted", "huge_pages", "granted_limit")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    LEASED_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    PENDING_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    PREFAULTED_FIELD_NUMBER: _ClassVar[int]
    HUGE_PAGES_FIELD_NUMBER: _ClassVar[int]
    GRANTED_LIMIT_FIELD_NUMBER: _ClassVar[int]
    budget: int
    used: int
    granted: int
    leased: int
    quarantined: int
    chunks: int
    parts: int
    pending_chunks: int
    mode: str
    verify: str
    prefaulted: int
    huge_pages: int
    granted_limit: int
    def __init__(self, budget: _Optional[int] = ..., used: _Optional[int] = ..., granted: _Optional[int] = ..., leased: _Optional[int] = ..., quarantined: _Optional[int] = ..., chunks: _Optional[int] = ..., parts: _Optional[int] = ..., pending_chunks: _Optional[int] = ..., mode: _Optional[str] = ..., verify: _Optional[str] = ..., prefaulted: _Optional[int] = ..., huge_pages: _Optional[int] = ..., granted_limit: _Optional[int] = ...) -> None: ...

class Counters(_message.Message):
    __slots__ = ("match_requests", "match_chunks_asked", "match_chunks_hit", "loaded_parts", "loaded_bytes", "stored_parts", "stored_bytes", "published_chunks", "duplicate_parts", "conflict_parts", "rejected_parts", "corrupt_parts", "evicted_chunks", "expired_pending_chunks", "revokes", "quarantined_sessions", "short_grants")
    MATCH_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MATCH_CHUNKS_ASKED_FIELD_NUMBER: _ClassVar[int]
    MATCH_CHUNKS_HIT_FIELD_NUMBER: _ClassVar[int]
    LOADED_PARTS_FIELD_NUMBER: _ClassVar[int]
    LOADED_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORED_PARTS_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_PARTS_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_PARTS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_PARTS_FIELD_NUMBER: _ClassVar[int]
    CORRUPT_PARTS_FIELD_NUMBER: _ClassVar[int]
    EVICTED_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_PENDING_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    REVOKES_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    SHORT_GRANTS_FIELD_NUMBER: _ClassVar[int]
    match_requests: int
    match_chunks_asked: int
    match_chunks_hit: int
    loaded_parts: int
    loaded_bytes: int
    stored_parts: int
    stored_bytes: int
    published_chunks: int
    duplicate_parts: int
    conflict_parts: int
    rejected_parts: int
    corrupt_parts: int
    evicted_chunks: int
    expired_pending_chunks: int
    revokes: int
    quarantined_sessions: int
    short_grants: int
    def __init__(self, match_requests: _Optional[int] = ..., match_chunks_asked: _Optional[int] = ..., match_chunks_hit: _Optional[int] = ..., loaded_parts: _Optional[int] = ..., loaded_bytes: _Optional[int] = ..., stored_parts: _Optional[int] = ..., stored_bytes: _Optional[int] = ..., published_chunks: _Optional[int] = ..., duplicate_parts: _Optional[int] = ..., conflict_parts: _Optional[int] = ..., rejected_parts: _Optional[int] = ..., corrupt_parts: _Optional[int] = ..., evicted_chunks: _Optional[int] = ..., expired_pending_chunks: _Optional[int] = ..., revokes: _Optional[int] = ..., quarantined_sessions: _Optional[int] = ..., short_grants: _Optional[int] = ...) -> None: ...

class NamespacesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NamespacesResponse(_message.Message):
    __slots__ = ("namespaces",)
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    namespaces: _containers.RepeatedCompositeFieldContainer[NamespaceStatus]
    def __init__(self, namespaces: _Optional[_Iterable[_Union[NamespaceStatus, _Mapping]]] = ...) -> None: ...

class NamespaceStatus(_message.Message):
    __slots__ = ("fingerprint", "descriptor", "epoch", "chunks", "bytes", "sessions", "parts", "codec")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    fingerprint: bytes
    descriptor: bytes
    epoch: int
    chunks: int
    bytes: int
    sessions: int
    parts: _containers.RepeatedCompositeFieldContainer[_part_pb2.PartSpec]
    codec: str
    def __init__(self, fingerprint: _Optional[bytes] = ..., descriptor: _Optional[bytes] = ..., epoch: _Optional[int] = ..., chunks: _Optional[int] = ..., bytes: _Optional[int] = ..., sessions: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[_part_pb2.PartSpec, _Mapping]]] = ..., codec: _Optional[str] = ...) -> None: ...

class InspectRequest(_message.Message):
    __slots__ = ("chunk_key",)
    CHUNK_KEY_FIELD_NUMBER: _ClassVar[int]
    chunk_key: bytes
    def __init__(self, chunk_key: _Optional[bytes] = ...) -> None: ...

class InspectResponse(_message.Message):
    __slots__ = ("parent", "ordinal", "tokens", "fingerprint", "tenant", "complete", "holds", "parts")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parent: bytes
    ordinal: int
    tokens: int
    fingerprint: bytes
    tenant: str
    complete: bool
    holds: int
    parts: _containers.RepeatedCompositeFieldContainer[InspectPart]
    def __init__(self, parent: _Optional[bytes] = ..., ordinal: _Optional[int] = ..., tokens: _Optional[int] = ..., fingerprint: _Optional[bytes] = ..., tenant: _Optional[str] = ..., complete: bool = ..., holds: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[InspectPart, _Mapping]]] = ...) -> None: ...

class InspectPart(_message.Message):
    __slots__ = ("tier", "slot", "leases", "descriptor", "verified")
    TIER_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    tier: _part_pb2.Tier
    slot: _part_pb2.Slot
    leases: int
    descriptor: bytes
    verified: str
    def __init__(self, tier: _Optional[_Union[_part_pb2.Tier, str]] = ..., slot: _Optional[_Union[_part_pb2.Slot, _Mapping]] = ..., leases: _Optional[int] = ..., descriptor: _Optional[bytes] = ..., verified: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("tokens", "keys", "fingerprint", "descriptor", "tenant", "salt", "adapter")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    keys: bytes
    fingerprint: bytes
    descriptor: bytes
    tenant: str
    salt: str
    adapter: bytes
    def __init__(self, tokens: _Optional[_Iterable[int]] = ..., keys: _Optional[bytes] = ..., fingerprint: _Optional[bytes] = ..., descriptor: _Optional[bytes] = ..., tenant: _Optional[str] = ..., salt: _Optional[str] = ..., adapter: _Optional[bytes] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("chunks_asked", "chunks_present", "reason", "text", "first_absent", "age_ms", "cause", "differences", "quality")
    CHUNKS_ASKED_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_PRESENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FIRST_ABSENT_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    chunks_asked: int
    chunks_present: int
    reason: str
    text: str
    first_absent: bytes
    age_ms: int
    cause: str
    differences: _containers.RepeatedCompositeFieldContainer[FieldDifference]
    quality: int
    def __init__(self, chunks_asked: _Optional[int] = ..., chunks_present: _Optional[int] = ..., reason: _Optional[str] = ..., text: _Optional[str] = ..., first_absent: _Optional[bytes] = ..., age_ms: _Optional[int] = ..., cause: _Optional[str] = ..., differences: _Optional[_Iterable[_Union[FieldDifference, _Mapping]]] = ..., quality: _Optional[int] = ...) -> None: ...

class FieldDifference(_message.Message):
    __slots__ = ("field", "asked", "known")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    field: str
    asked: str
    known: str
    def __init__(self, field: _Optional[str] = ..., asked: _Optional[str] = ..., known: _Optional[str] = ...) -> None: ...

class ClearRequest(_message.Message):
    __slots__ = ("fingerprint", "tenant", "everything")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    fingerprint: bytes
    tenant: str
    everything: bool
    def __init__(self, fingerprint: _Optional[bytes] = ..., tenant: _Optional[str] = ..., everything: bool = ...) -> None: ...

class ClearResponse(_message.Message):
    __slots__ = ("chunks", "bytes")
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    chunks: int
    bytes: int
    def __init__(self, chunks: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class PinRequest(_message.Message):
    __slots__ = ("tokens", "keys", "fingerprint", "tenant", "salt", "adapter", "unpin")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    UNPIN_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    keys: bytes
    fingerprint: bytes
    tenant: str
    salt: str
    adapter: bytes
    unpin: bool
    def __init__(self, tokens: _Optional[_Iterable[int]] = ..., keys: _Optional[bytes] = ..., fingerprint: _Optional[bytes] = ..., tenant: _Optional[str] = ..., salt: _Optional[str] = ..., adapter: _Optional[bytes] = ..., unpin: bool = ...) -> None: ...

class PinResponse(_message.Message):
    __slots__ = ("chunks_asked", "chunks", "bytes", "absent", "full", "text")
    CHUNKS_ASKED_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    chunks_asked: int
    chunks: int
    bytes: int
    absent: int
    full: int
    text: str
    def __init__(self, chunks_asked: _Optional[int] = ..., chunks: _Optional[int] = ..., bytes: _Optional[int] = ..., absent: _Optional[int] = ..., full: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class ConfigRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConfigResponse(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[ConfigValue]
    def __init__(self, values: _Optional[_Iterable[_Union[ConfigValue, _Mapping]]] = ...) -> None: ...

class ConfigValue(_message.Message):
    __slots__ = ("key", "value", "source")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    source: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...
