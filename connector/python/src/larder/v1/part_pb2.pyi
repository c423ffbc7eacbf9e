from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Tier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIER_UNSPECIFIED: _ClassVar[Tier]
    TIER_HOST: _ClassVar[Tier]
    TIER_NVME: _ClassVar[Tier]
    TIER_PEER: _ClassVar[Tier]
    TIER_REMOTE: _ClassVar[Tier]
TIER_UNSPECIFIED: Tier
TIER_HOST: Tier
TIER_NVME: Tier
TIER_PEER: Tier
TIER_REMOTE: Tier

class PartId(_message.Message):
    __slots__ = ("chunk_key", "group", "span", "head_group")
    CHUNK_KEY_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    HEAD_GROUP_FIELD_NUMBER: _ClassVar[int]
    chunk_key: bytes
    group: int
    span: int
    head_group: int
    def __init__(self, chunk_key: _Optional[bytes] = ..., group: _Optional[int] = ..., span: _Optional[int] = ..., head_group: _Optional[int] = ...) -> None: ...

class PartSpec(_message.Message):
    __slots__ = ("group", "span", "head_group", "raw_length", "layers")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    HEAD_GROUP_FIELD_NUMBER: _ClassVar[int]
    RAW_LENGTH_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    group: int
    span: int
    head_group: int
    raw_length: int
    layers: int
    def __init__(self, group: _Optional[int] = ..., span: _Optional[int] = ..., head_group: _Optional[int] = ..., raw_length: _Optional[int] = ..., layers: _Optional[int] = ...) -> None: ...

class Slot(_message.Message):
    __slots__ = ("segment", "offset", "length", "generation")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    segment: int
    offset: int
    length: int
    generation: int
    def __init__(self, segment: _Optional[int] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ..., generation: _Optional[int] = ...) -> None: ...
