"""SigLIP's rule for texts: lower case, cut and padded to one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.encoder._checkpoints import Checkpoint, damaged
from sk_medsiglip.encoder._torch_towers import quiet_transformers
from sk_medsiglip.exceptions import CheckpointError


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the tokenizer of a checkpoint; no weights are read.

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
    """Return token ids as the text tower takes them.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        From :func:`load_tokenizer`.
    texts : sequence of str
        Each is lower-cased, cut and padded. The padding is attended to, as in SigLIP's
        training, which is why the length is fixed.
    text_tokens : int
        Tokens that the text tower reads.

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
    """Return how many tokens each text has before it is cut, and how many are known.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        From :func:`load_tokenizer`.
    texts : sequence of str

    Returns
    -------
    list of (int, int)
        All tokens, and those that stand for something in the vocabulary. A text
        without any of these, in another script for example, tells the model nothing.
    """
    lowered = [text.lower() for text in texts]
    # Not verbose: it would warn that the whole text does not fit, and none is used.
    tokens = tokenizer(lowered, verbose=False)["input_ids"]
    # The bare space comes before whatever follows, unknown or not.
    empty = {*tokenizer.all_special_ids, tokenizer.convert_tokens_to_ids("\u2581")}
    return [(len(ids), sum(one not in empty for one in ids)) for ids in tokens]
