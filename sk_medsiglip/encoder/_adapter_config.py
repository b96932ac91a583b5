"""Validation of peft's configuration of an adapter.

peft imports the module named by ``megatron_core``, and matches layers by arbitrary
regular expressions. A folder may come from an untrusted source, so only settings that
are known to be harmless, and to give the same weights at each loading, are passed on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

# Place of the base, versions, start of the training: none affects the loaded adapter.
PASSING = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "eva_config",
        "inference_mode",
        "lora_dropout",
        "peft_version",
        "revision",
        "task_type",
    }
)
# Settings of disabled features: peft writes their defaults, which are not empty.
_DISABLED_FEATURES = frozenset(
    {"loftq_config", "megatron_core", "peft_type", "qalora_group_size"}
)
# Other initialisations change the base by random draws, or by data that are missing.
_STARTS = frozenset({"eva", "gaussian", "olora", "orthogonal", "pissa"})

# Regular expressions without a repeated group, which are matched in bounded time:
# names, ".", ".*", r"\.", r"\d+", [0-9], alternatives.
_PATTERN = re.compile(
    r"\^?(?:\w|-|\\\.|\\d\+?|\[[\w-]+\]\+?|\.[*+]?|\((?:\?:)?|\||\))+\$?"
)
_MAX_PATTERN = 1000
_MAX_RANK = 4096


def lora_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``adapter_config.json`` that decide its weights."""
    settings = {}
    for key, value in config.items():
        if key in PASSING or key in _DISABLED_FEATURES:
            continue
        if key not in _CHECKS:
            if value in (None, False, [], {}):
                continue
            raise ValueError(f"{key!r} is not supported (got {_short(value)})")
        if value is None:
            continue
        if not _CHECKS[key](value):
            raise ValueError(f"{key!r} cannot be {_short(value)}")
        settings[key] = value
    return settings


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_rank(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MAX_RANK


def _is_strength(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) <= 1e6


def _is_pattern(value: Any) -> bool:
    """Whether a value is a regular expression that is matched in bounded time."""
    if not isinstance(value, str) or len(value) > _MAX_PATTERN:
        return False
    if not _PATTERN.fullmatch(value) or len(re.findall(r"[^\\]?\.[*+]", value)) > 3:
        return False
    try:
        re.compile(value)
    except re.error:
        return False
    return True


def _are_modules(value: Any) -> bool:
    if isinstance(value, str):
        return _is_pattern(value)
    return isinstance(value, list) and all(map(_is_pattern, value))


def _are_layers(value: Any) -> bool:
    layers = value if isinstance(value, list) else [value]
    return all(type(one) is int and 0 <= one < 10_000 for one in layers)


def _is_start(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value in _STARTS)


def _by_module(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a check of an object whose keys are patterns of modules."""

    def is_so(value: Any) -> bool:
        return isinstance(value, dict) and all(
            _is_pattern(name) and check(one) for name, one in value.items()
        )

    return is_so


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "r": _is_rank,
    "lora_alpha": _is_strength,
    "target_modules": _are_modules,
    "exclude_modules": _are_modules,
    "modules_to_save": _are_modules,
    "layers_pattern": _are_modules,
    "layers_to_transform": _are_layers,
    "rank_pattern": _by_module(_is_rank),
    "alpha_pattern": _by_module(_is_strength),
    "bias": lambda value: value in ("none", "all", "lora_only"),
    "fan_in_fan_out": _is_flag,
    "init_lora_weights": _is_start,
    "lora_bias": _is_flag,
    "use_dora": _is_flag,
    "use_rslora": _is_flag,
    "target_parameters": _are_modules,
}


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
