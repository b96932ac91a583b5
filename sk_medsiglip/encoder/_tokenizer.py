"""SigLIP's tokenization of texts: lower case, cut and padded to one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.encoder._checkpoints import Checkpoint, damaged
from sk_medsiglip.encoder._torch_towers import quiet_transformers
from sk_medsiglip.exceptions import CheckpointError


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the tokenizer of a checkpoint, without reading weights.

    Parameters
    ----------
    checkpoint : Checkpoint

    Returns
    -------
    transformers.PreTrainedTokenizerBase

    Raises
    ------
    CheckpointError
        If its files are missing or damaged.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(
                checkpoint.folder, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            damaged(checkpoint, f"its tokenizer cannot be loaded: {error}")
        ) from error


def tokenize(
    tokenizer: Any, texts: Sequence[str], text_tokens: int
) -> NDArray[np.int64]:
    """Return token ids for the text tower.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Result of :func:`load_tokenizer`.
    texts : sequence of str
        Texts, which are lower-cased, cut and padded. Padding takes part in the
        attention, as in the training of SigLIP, so the length is fixed.
    text_tokens : int
        Number of tokens read by the text tower.

    Returns
    -------
    ndarray of shape (n_texts, text_tokens), int64
    """
    tokens = tokenizer(
        [text.lower() for text in texts],
        padding="max_length",
        max_length=text_tokens,
        truncation=True,
    )
    return np.array(tokens["input_ids"], dtype=np.int64)


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> list[tuple[int, int]]:
    """Return the number of tokens of each text before it is cut.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Result of :func:`load_tokenizer`.
    texts : sequence of str

    Returns
    -------
    list of (int, int)
        Number of all tokens, and number of those in the vocabulary. A text without
        known tokens, for example in another script, is meaningless to the model.
    """
    lowered = [text.lower() for text in texts]
    # verbose=False silences a warning about texts that are too long for the model.
    tokens = tokenizer(lowered, verbose=False)["input_ids"]
    # The bare space precedes every word, known or unknown.
    empty = {*tokenizer.all_special_ids, tokenizer.convert_tokens_to_ids("\u2581")}
    return [(len(ids), sum(one not in empty for one in ids)) for ids in tokens]
