"""Prompts and class vectors, shared by zero-shot and prompt-anchored heads.

::

    _question.py       checked prompts of exclusive classes or of findings
    _class_vectors.py  their texts, embedded and averaged
    _prompt_set.py     PromptSet: prompts with a name, a version and a source
    _prompt_file.py    YAML and JSON files of prompts; those of the package are in sets/
    _lint.py           lint_prompts: problems that can be found without images
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.prompts._class_vectors import (
    ClassVectors,
    encode_class_vectors,
    encode_question,
)
from sk_medsiglip.prompts._lint import lint_prompts
from sk_medsiglip.prompts._prompt_set import (
    PromptSet,
    find_prompt_set,
    list_prompt_sets,
    load_prompt_set,
)
from sk_medsiglip.prompts._question import (
    Question,
    check_prompts,
    check_texts,
    is_pair,
)

__all__ = [
    "ClassVectors",
    "PromptSet",
    "Question",
    "check_prompts",
    "check_texts",
    "encode_class_vectors",
    "encode_question",
    "find_prompt_set",
    "is_pair",
    "lint_prompts",
    "list_prompt_sets",
    "load_prompt_set",
]

name_by_room(globals())
