"""Prompts to class vectors: where zero-shot and prompt-anchored heads both start."""

from sk_medsiglip.prompts._class_vectors import encode_class_vectors
from sk_medsiglip.prompts._question import Question, check_prompts

__all__ = ["Question", "check_prompts", "encode_class_vectors"]
