"""The demonstration checkpoint's own vocabulary, in SigLIP's file format."""

from __future__ import annotations

import json
import string
from pathlib import Path

import sentencepiece
from transformers import SiglipTokenizer

from training.wording import FILLERS, list_clauses

MAX_LENGTH = 64


def train_tokenizer(folder: Path, vocabulary_size: int = 1000) -> SiglipTokenizer:
    """Write ``spiece.model`` and its settings, and return the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = sorted({clause.text for clause in list_clauses()} | set(FILLERS))
    # Lower case and without punctuation, as the tokenizer feeds it.
    keep = str.maketrans("", "", string.punctuation)
    corpus = [line.lower().translate(keep) for line in lines]
    # Rare words count as much as common ones: each should become one piece.
    corpus += sorted({word for line in corpus for word in line.split()}) * 50
    # Words that no caption uses must still fall apart into known letters.
    corpus += list(string.ascii_lowercase + string.digits) * 5
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_prefix=str(folder / "spiece"),
        vocab_size=vocabulary_size,
        hard_vocab_limit=False,
        model_type="unigram",
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        eos_piece="</s>",
        unk_piece="<unk>",
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    settings = {
        "tokenizer_class": "SiglipTokenizer",
        "processor_class": "SiglipProcessor",
        "do_lower_case": True,
        "model_max_length": MAX_LENGTH,
        "model_input_names": ["input_ids"],
        "eos_token": "</s>",
        # As in the published checkpoints, padding repeats the end of the text.
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "additional_special_tokens": [],
        "clean_up_tokenization_spaces": True,
        "sp_model_kwargs": {},
        "added_tokens_decoder": {
            str(index): {
                "content": token,
                "lstrip": True,
                "normalized": False,
                "rstrip": True,
                "single_word": False,
                "special": True,
            }
            for index, token in ((1, "</s>"), (2, "<unk>"))
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    tokens = {
        name: {
            "content": token,
            "lstrip": True,
            "normalized": False,
            "rstrip": True,
            "single_word": False,
        }
        for name, token in (
            ("eos_token", "</s>"),
            ("pad_token", "</s>"),
            ("unk_token", "<unk>"),
        )
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens, indent=2) + "\n")
    return SiglipTokenizer.from_pretrained(folder)


def tokenize(tokenizer: SiglipTokenizer, texts: list[str]):
    """Return ``input_ids`` as MedSigLIP wants them: padded to 64, padding attended."""
    return tokenizer(
        texts,
        padding="max_length",
        max_length=MAX_LENGTH,
        truncation=True,
        return_tensors="pt",
    )["input_ids"]
