"""A model's configuration as the canonical fields of a namespace
(api/NAMESPACE.md, "Config fields").

Whatever is not known to be harmless is a field: a field too many costs hits
with an engine that differs there, a field too few returns wrong KV.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from larder.errors import InvalidError
from larder.namespace import ConfigField

# Dropped from a configuration, and from one nested in it; nothing else is. Only
# what differs between engines of the same files is worth it, and each has to be
# proven: token ids, initializer_range and dtype look harmless, and there are
# models that hash n-grams by eos_token_id, scale embeddings by
# 1 / initializer_range and make buffers of the type that dtype names.
_HARMLESS = frozenset(
    {
        # Where the files came from: the weights id says what is in them.
        "_name_or_path", "name_or_path", "_commit_hash",
        # Who wrote the file.
        "transformers_version",
        # Which kernel attends.
        "_attn_implementation", "_attn_implementation_internal",
        # What a forward pass hands out besides its result.
        "use_cache", "return_dict", "output_attentions", "output_hidden_states",
    }
)  # fmt: skip
# Names that this module gives; a setting of the same name is told apart.
_OURS = frozenset({"architecture", "compute", "engine", "rope"})
_REWRITTEN = frozenset({"rope_parameters", "rope_scaling", "rope_theta", "architectures"})
_PLAIN = re.compile(r"[^A-Za-z0-9_./+-]")
_LIKE_OTHER = re.compile(r"[-+.0-9].*|true|false|null|inf|nan|")
_MAX_VALUE = 4096
_MAX_NAME = 128
_MAX_NESTED = 64


def config_fields(
    config: Mapping[str, object], compute_dtype: str, extra: Mapping[str, object] | None = None
) -> tuple[ConfigField, ...]:
    """Return the fields of a configuration, ascending by name.

    config is the whole config.json as the engine uses it, overrides applied.
    compute_dtype is the torch name of the type that the engine computes in.
    extra adds what the engine changes beyond config and weights, under names
    such as "engine.quantization". None is the same as absent. INVALID for a
    value without canonical text, naming the field.
    """
    fields: dict[str, str] = {}
    for key, value in config.items():
        if key not in _REWRITTEN and key not in _HARMLESS:
            # No escape of _name() begins like this.
            name = "-" + key if key in _OURS else _name(str(key))
            for field in _setting(name, value):
                _add(fields, *field)
    ours = {"architecture": _architecture(config), "compute.dtype": compute_dtype, **_rope(config), **(extra or {})}
    for name, value in ours.items():
        for field in _setting(name, value):
            _add(fields, *field)
    return tuple(ConfigField(n, fields[n]) for n in sorted(fields))


def canonical_value(value: object, name: str = "") -> str:
    """Return the one text of a value: true, false, null; whole numbers below
    1e16 as integers, other floats as the shortest text that reads back the
    same; strings as they are, bytes outside A-Z a-z 0-9 _ . / + - as %XX of
    their UTF-8, with a leading ' where they would read as something else;
    lists [a,b]; mappings {k:v} by ascending key. Text over 4096 characters
    becomes sha256:hex."""
    text = _text(value, name)
    if len(text) > _MAX_VALUE:
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    return text


def _text(value: object, name: str) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value))
        case float():
            # Not finite: inf, -inf, nan, which Python's JSON reads and some
            # state-space models have.
            return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(float(value))
        case str():
            text = _PLAIN.sub(lambda m: "".join(f"%{b:02X}" for b in m[0].encode("utf-8", "surrogatepass")), value)
            return "'" + text if _LIKE_OTHER.fullmatch(text) else text
        case list() | tuple():
            return "[" + ",".join(_text(v, name) for v in value) + "]"
        case Mapping():
            items = sorted((_text(str(k), name), _text(v, name)) for k, v in value.items())
            return "{" + ",".join(f"{k}:{v}" for k, v in items) + "}"
    raise InvalidError("a value of this type has no canonical text", f"namespace.config.{name}", type(value).__name__)


def _setting(name: str, value: object) -> list[tuple[str, str]]:
    """Return the fields of one setting."""
    if value is None:
        return []
    if not isinstance(value, Mapping):
        return [(name, canonical_value(value, name))]
    # A serialized configuration says its model_type. In other mappings, such as
    # a quantization's, a name that is harmless elsewhere may mean anything.
    is_config = "model_type" in value
    fields = [
        field
        for key, inner in value.items()
        if not (is_config and key in _HARMLESS)
        for field in _setting(f"{name}.{_name(str(key))}", inner)
    ]
    # Settings for each layer or module of a large model.
    if not is_config and (len(fields) > _MAX_NESTED or any(len(n) > _MAX_NAME for n, _ in fields)):
        return [(name, canonical_value(value, name))]
    return fields


def _name(key: str) -> str:
    """Escape whatever a name may not hold, the dot included, as -xx."""
    return re.sub(r"[^a-z0-9_]", lambda m: "".join(f"-{b:02x}" for b in m[0].encode("utf-8", "surrogatepass")), key)


def _add(fields: dict[str, str], name: str, value: str) -> None:
    if fields.setdefault(name, value) != value:
        raise InvalidError("two values for one field", f"namespace.config.{name}", value, fields[name])


def _architecture(config: Mapping[str, object]) -> object:
    names = config.get("architectures")
    return names[0] if isinstance(names, list | tuple) and len(names) == 1 else names


def _rope(config: Mapping[str, object]) -> dict[str, object]:
    """Bring the two ways of writing RoPE into one: rope_parameters, and
    rope_theta beside rope_scaling. What does not fit into one of them stays
    beside it, because some code may read that."""
    new, old, theta = (config.get(k) for k in ("rope_parameters", "rope_scaling", "rope_theta"))
    source = old if new is None else new
    if source is None and theta is None:
        return {}
    if source is not None and not isinstance(source, Mapping):
        raise InvalidError("not a mapping", "namespace.config.rope", type(source).__name__)
    source = dict(source or {})
    out: dict[str, object] = {}
    if source and all(isinstance(v, Mapping) for v in source.values()):
        # One set for each type of layer.
        out = {
            f"rope.{_name(str(kind))}.{k}": v
            for kind, values in source.items()
            if isinstance(values, Mapping)
            for k, v in _rope_set(dict(values)).items()
        }
    else:
        if theta is not None:
            source.setdefault("rope_theta", theta)
        out = {f"rope.{k}": v for k, v in _rope_set(source).items()}
        if out["rope.theta"] == theta:
            theta = None
    return out | {"rope.top_theta": theta, "rope.top_scaling": None if new is None or old == new else old}


def _rope_set(source: dict[str, object]) -> dict[str, object]:
    """Return kind, theta and the rest; kind and theta are always there."""
    kind = source.pop("rope_type", None)
    if kind is None or source.get("type") == kind:
        kind = source.pop("type", None) or kind
    theta = source.pop("rope_theta", None)
    rest = {_name(str(k)): v for k, v in source.items()}
    for name in ("kind", "theta", "top_theta", "top_scaling"):
        if name in rest:
            raise InvalidError("not known beside RoPE's own names", f"namespace.config.rope.{name}", str(rest[name]))
    return {**rest, "kind": kind or "default", "theta": theta}
