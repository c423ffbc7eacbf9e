from larder.v1 import part_pb2 as _part_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PutOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PUT_OUTCOME_UNSPECIFIED: _ClassVar[PutOutcome]
    PUT_OUTCOME_KEPT: _ClassVar[PutOutcome]
    PUT_OUTCOME_PUBLISHED: _ClassVar[PutOutcome]
    PUT_OUTCOME_DUPLICATE: _ClassVar[PutOutcome]
    PUT_OUTCOME_CONFLICT: _ClassVar[PutOutcome]
PUT_OUTCOME_UNSPECIFIED: PutOutcome
PUT_OUTCOME_KEPT: PutOutcome
PUT_OUTCOME_PUBLISHED: PutOutcome
PUT_OUTCOME_DUPLICATE: PutOutcome
PUT_OUTCOME_CONFLICT: PutOutcome

class PutRequest(_message.Message):
    __slots__ = ("head", "data")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    head: PutHead
    data: bytes
    def __init__(self, head: _Optional[_Union[PutHead, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class PutHead(_message.Message):
    __slots__ = ("part", "file")
    PART_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    part: PutPart
    file: PutFile
    def __init__(self, part: _Optional[_Union[PutPart, _Mapping]] = ..., file: _Optional[_Union[PutFile, _Mapping]] = ...) -> None: ...

class PutPart(_message.Message):
    __slots__ = ("id", "parent", "ordinal", "tokens", "quality", "length")
    ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    id: _part_pb2.PartId
    parent: bytes
    ordinal: int
    tokens: int
    quality: int
    length: int
    def __init__(self, id: _Optional[_Union[_part_pb2.PartId, _Mapping]] = ..., parent: _Optional[bytes] = ..., ordinal: _Optional[int] = ..., tokens: _Optional[int] = ..., quality: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class PutFile(_message.Message):
    __slots__ = ("name", "length")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    name: str
    length: int
    def __init__(self, name: _Optional[str] = ..., length: _Optional[int] = ...) -> None: ...

class PutResponse(_message.Message):
    __slots__ = ("outcome",)
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    outcome: PutOutcome
    def __init__(self, outcome: _Optional[_Union[PutOutcome, str]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("parts", "file")
    PARTS_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    parts: GetParts
    file: str
    def __init__(self, parts: _Optional[_Union[GetParts, _Mapping]] = ..., file: _Optional[str] = ...) -> None: ...

class GetParts(_message.Message):
    __slots__ = ("ids", "worst_quality")
    IDS_FIELD_NUMBER: _ClassVar[int]
    WORST_QUALITY_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedCompositeFieldContainer[_part_pb2.PartId]
    worst_quality: int
    def __init__(self, ids: _Optional[_Iterable[_Union[_part_pb2.PartId, _Mapping]]] = ..., worst_quality: _Optional[int] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("head", "data")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    head: GetHead
    data: bytes
    def __init__(self, head: _Optional[_Union[GetHead, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class GetHead(_message.Message):
    __slots__ = ("index", "length", "descriptor", "error_kind")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    ERROR_KIND_FIELD_NUMBER: _ClassVar[int]
    index: int
    length: int
    descriptor: bytes
    error_kind: int
    def __init__(self, index: _Optional[int] = ..., length: _Optional[int] = ..., descriptor: _Optional[bytes] = ..., error_kind: _Optional[int] = ...) -> None: ...

class StatRequest(_message.Message):
    __slots__ = ("parts", "file")
    PARTS_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    parts: GetParts
    file: str
    def __init__(self, parts: _Optional[_Union[GetParts, _Mapping]] = ..., file: _Optional[str] = ...) -> None: ...

class StatResponse(_message.Message):
    __slots__ = ("parts", "file")
    PARTS_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[PartStat]
    file: FileStat
    def __init__(self, parts: _Optional[_Iterable[_Union[PartStat, _Mapping]]] = ..., file: _Optional[_Union[FileStat, _Mapping]] = ...) -> None: ...

class PartStat(_message.Message):
    __slots__ = ("present", "tier", "descriptor")
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    present: bool
    tier: _part_pb2.Tier
    descriptor: bytes
    def __init__(self, present: bool = ..., tier: _Optional[_Union[_part_pb2.Tier, str]] = ..., descriptor: _Optional[bytes] = ...) -> None: ...

class FileStat(_message.Message):
    __slots__ = ("length", "tier")
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    length: int
    tier: _part_pb2.Tier
    def __init__(self, length: _Optional[int] = ..., tier: _Optional[_Union[_part_pb2.Tier, str]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("chunk_key", "file")
    CHUNK_KEY_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    chunk_key: bytes
    file: str
    def __init__(self, chunk_key: _Optional[bytes] = ..., file: _Optional[str] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("existed",)
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    existed: bool
    def __init__(self, existed: bool = ...) -> None: ...
