"""A model's configuration as the canonical fields of a namespace
(api/NAMESPACE.md, "Config fields").

Whatever is not known to be harmless is a field: a field too many costs hits
with an engine that differs there, a field too few returns wrong KV.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping

from larder.errors import InvalidError
from larder.namespace import ConfigField

_HARMLESS = frozenset(
    {
        # Names and versions; the weights id says which weights they are.
        "_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "auto_map",
        # What the model computes in is told by the engine: compute.dtype.
        "dtype", "torch_dtype", "_attn_implementation", "_attn_implementation_internal",
        # Training, and what happens after the last layer's KV.
        "initializer_range", "attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop",
        "use_cache", "pretraining_tp", "chunk_size_feed_forward", "gradient_checkpointing",
        "tie_word_embeddings", "final_logit_softcapping", "router_aux_loss_coef", "output_router_logits",
        "output_hidden_states", "output_attentions", "return_dict", "problem_type", "id2label", "label2id",
        # Tokens arrive as numbers.
        "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id",
    }
)  # fmt: skip
_ROPE = frozenset({"rope_parameters", "rope_scaling", "rope_theta", "architectures"})
_PLAIN = re.compile(r"[^A-Za-z0-9_./+-]")
_LIKE_OTHER = re.compile(r"[-+.0-9].*|true|false|null|")
_MAX_VALUE = 4096


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
    sources: tuple[Mapping[str, object], ...] = (
        {k: v for k, v in config.items() if k not in _ROPE},
        {"architecture": _architecture(config), "rope": _rope(config), "compute": {"dtype": compute_dtype}},
    )
    for source in sources:
        for name, value in _flatten("", source):
            _add(fields, name, value)
    for name, raw in (extra or {}).items():
        if raw is not None:
            _add(fields, name, canonical_value(raw, name))
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
            if not math.isfinite(value):
                raise InvalidError("not a finite number", f"namespace.config.{name}", str(value))
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


def _flatten(prefix: str, mapping: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in mapping.items():
        if key in _HARMLESS and prefix != "compute.":
            continue
        name = prefix + _name(str(key))
        if isinstance(value, Mapping):
            yield from _flatten(name + ".", value)
        elif value is not None:
            yield name, canonical_value(value, name)


def _name(key: str) -> str:
    """Escape whatever a name may not hold, the dot included, as -xx."""
    return re.sub(r"[^a-z0-9_]", lambda m: "".join(f"-{b:02x}" for b in m[0].encode()), key)


def _add(fields: dict[str, str], name: str, value: str) -> None:
    if fields.setdefault(name, value) != value:
        raise InvalidError("two values for one field", f"namespace.config.{name}", value, fields[name])


def _architecture(config: Mapping[str, object]) -> object:
    names = config.get("architectures")
    return names[0] if isinstance(names, list | tuple) and len(names) == 1 else names


def _rope(config: Mapping[str, object]) -> dict[str, object]:
    """Bring the two ways of writing RoPE into one: rope_parameters, and
    rope_theta beside rope_scaling."""
    new, theta = config.get("rope_parameters"), config.get("rope_theta")
    source = new if new is not None else config.get("rope_scaling")
    if source is None and theta is None:
        return {}
    if source is not None and not isinstance(source, Mapping):
        raise InvalidError("not a mapping", "namespace.config.rope", type(source).__name__)
    source = dict(source or {})
    if source and all(isinstance(v, Mapping) for v in source.values()):
        # One set for each type of layer.
        out: dict[str, object] = {
            _name(str(k)): _rope_set(dict(v)) for k, v in source.items() if isinstance(v, Mapping)
        }
    else:
        if theta is not None:
            source.setdefault("rope_theta", theta)
        out = _rope_set(source)
        if out.get("theta") == theta:
            theta = None
    # A second theta that disagrees may be what some code reads.
    return out | {"top_theta": theta}


def _rope_set(source: dict[str, object]) -> dict[str, object]:
    kind = source.pop("rope_type", None) or source.pop("type", None) or "default"
    source.pop("type", None)
    theta = source.pop("rope_theta", None)
    return {**source, "kind": kind, "theta": theta}
