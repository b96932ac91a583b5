"""Parts of the room by themselves: losses, rows, batches, changes, kept texts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sk_medsiglip import MedSigLIPEmbedder, _labels
from sk_medsiglip.encoder import Checkpoint
from sk_medsiglip.fine_tuning import (
    Augmentation,
    MedSigLIPFineTuner,
    _augmentation,
    _batches,
    _losses,
    _network,
    _save,
    _settings,
    _texts,
)


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 8)), rng.normal(size=(5, 8))


def test_the_formula_of_the_paper(vectors):
    images, texts = vectors
    log_scale, bias = 2.3, -10.0
    x = images / np.linalg.norm(images, axis=1, keepdims=True)
    t = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    expected = 0.0
    for i in range(5):
        for j in range(5):
            z = 1 if i == j else -1
            logit = np.exp(log_scale) * (x[i] @ t[j]) + bias
            # Equation 1 of the paper, for one pair.
            expected -= np.log(1 / (1 + np.exp(z * -logit))) / 5
    loss = _losses.sigmoid_pair_loss(
        torch.tensor(images),
        torch.tensor(texts),
        torch.tensor(log_scale),
        torch.tensor(bias),
    )
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_loss_and_gradients_are_those_of_transformers(checkpoint):
    from transformers import SiglipModel

    model = SiglipModel.from_pretrained(checkpoint)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(4, 3, 28, 28, generator=generator)
    ids = torch.randint(0, 200, (4, 64), generator=generator)
    theirs = model(input_ids=ids, pixel_values=pixels, return_loss=True)
    theirs.loss.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    ours = _losses.sigmoid_pair_loss(
        model.vision_model(pixel_values=pixels).pooler_output,
        model.text_model(input_ids=ids).pooler_output,
        model.logit_scale,
        model.logit_bias,
    )
    ours.backward()
    assert ours.item() == pytest.approx(theirs.loss.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_what_is_left_out_has_neither_loss_nor_gradient(vectors):
    images = torch.tensor(vectors[0], requires_grad=True)
    texts = torch.tensor(vectors[1])
    signs = 2 * torch.eye(5, dtype=torch.int8) - 1
    signs[0] = 0
    scale, bias = torch.tensor(1.0), torch.tensor(-2.0)
    loss = _losses.sigmoid_pair_loss(images, texts, scale, bias, signs)
    loss.backward()
    rest = _losses.sigmoid_pair_loss(images[1:], texts, scale, bias, signs[1:])
    assert loss.item() == pytest.approx(rest.item() * 4 / 5, rel=1e-6)
    assert (images.grad[0] == 0).all()
    assert (images.grad[1:] != 0).any()


def signs_of(true, shown, unknown=None, images=None, same_caption="ignore"):
    rows = torch.arange(len(shown))
    images = rows if images is None else torch.tensor(images)
    unknown = [[-1]] * len(shown) if unknown is None else unknown
    return _losses.pair_signs(
        rows,
        rows,
        torch.tensor(true),
        torch.tensor(unknown),
        torch.tensor(shown),
        images,
        images,
        same_caption,
    ).tolist()


def test_rows_that_share_a_caption_are_no_counter_examples():
    true, shown = [[0], [0], [1]], [0, 0, 1]
    assert signs_of(true, shown) == [[1, 0, -1], [0, 1, -1], [-1, -1, 1]]
    positive = signs_of(true, shown, same_caption="positive")
    assert positive == [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]
    # The paper's own, which this option is there to give.
    paper = signs_of(true, shown, same_caption="negative")
    assert paper == [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]


def test_a_text_that_is_true_of_a_row_counts_though_the_row_shows_another():
    # Row 0 shows text 0; text 1, which row 1 shows, is true of row 0 too, not back.
    assert signs_of([[0, 1], [1, -1]], [0, 1]) == [[1, 0], [-1, 1]]


def test_unknown_texts_and_repeated_pictures_are_left_out():
    assert signs_of([[0], [1]], [0, 1], unknown=[[1], [-1]]) == [[1, 0], [-1, 1]]
    assert signs_of([[0], [1]], [0, 1], images=[7, 7]) == [[1, 0], [0, 1]]


def test_blanks_count_in_no_label():
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]], requires_grad=True)
    targets = torch.tensor([[1.0, np.nan], [0.0, 1.0]])
    loss = _losses.binary_loss(logits, targets, torch.tensor([3.0, 1.0]))
    sigmoid = 1 / (1 + np.exp(-np.array([2.0, 0.5, 3.0])))
    expected = -(3 * np.log(sigmoid[0]) + np.log(1 - sigmoid[1]) + np.log(sigmoid[2]))
    assert loss.item() == pytest.approx(expected / 3, rel=1e-6)
    loss.backward()
    assert logits.grad[0, 1] == 0
    nothing = torch.full((2, 2), np.nan)
    assert _losses.binary_loss(logits, nothing, None).item() == 0


def test_classes_are_weighted_as_torch_weights_them():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator)
    targets = torch.tensor([0, 1, 2, 2, 1, 0])
    for weight in (None, torch.tensor([1.0, 2.0, 0.5])):
        expected = torch.nn.functional.cross_entropy(logits, targets, weight=weight)
        assert float(_losses.class_loss(logits, targets, weight)) == pytest.approx(
            float(expected), rel=1e-6
        )


def test_a_single_process_gathers_its_own_rows():
    rows = torch.ones(2, 3)
    assert _losses.gather_rows(rows) is rows


def test_an_epoch_shows_each_row_once_and_epochs_differ():
    order = list(_batches.RunOrder(10, 3, 6, seed=1))
    assert [len(batch) for batch in order] == [3] * 6
    epochs = [sum(order[:3], []), sum(order[3:], [])]
    for number, items in enumerate(epochs):
        rows = np.array(items) - 10 * number
        assert len(set(rows.tolist())) == 9
        assert rows.min() >= 0
        assert rows.max() < 10
    assert (np.array(epochs[0]) != np.array(epochs[1]) - 10).any()
    assert order == list(_batches.RunOrder(10, 3, 6, seed=1))
    assert order != list(_batches.RunOrder(10, 3, 6, seed=2))


def test_processes_share_the_rows_of_a_larger_batch():
    together = list(_batches.RunOrder(17, 4, 5, seed=3))
    first = list(_batches.RunOrder(17, 2, 5, seed=3, n_processes=2, process=0))
    second = list(_batches.RunOrder(17, 2, 5, seed=3, n_processes=2, process=1))
    joined = [a + b for a, b in zip(first, second, strict=True)]
    assert joined == together


def test_changes_belong_to_seed_epoch_and_row_alone():
    how = Augmentation()
    one = _augmentation.draw_changes(how, 5, [2], [40])
    many = _augmentation.draw_changes(how, 5, [2, 2, 3], [7, 40, 40])
    np.testing.assert_array_equal(many[0][1], one[0][0])
    np.testing.assert_array_equal(many[1][1], one[1][0])
    assert (many[0][2] != one[0][0]).any()
    assert (_augmentation.draw_changes(how, 6, [2], [40])[0] != one[0]).any()


def test_each_change_can_be_switched_off_and_does_what_it_says():
    still = Augmentation(rotation=0, shift=0, scale=0, brightness=0, contrast=0)
    pixels = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    affine, tone = _augmentation.draw_changes(still, 0, [0] * 3, range(3))
    same = _augmentation.apply_changes(pixels, torch.tensor(affine), torch.tensor(tone))
    torch.testing.assert_close(same, pixels, rtol=1e-5, atol=1e-3)
    mirrored = Augmentation(
        rotation=0, shift=0, scale=0, brightness=0, contrast=0, flip_left_right=True
    )
    affine, tone = _augmentation.draw_changes(mirrored, 0, [0] * 40, range(40))
    turned = affine[:, 0, 0] < 0
    assert 8 < turned.sum() < 32
    assert (affine[:, 1, 1] > 0).all()
    row = int(np.flatnonzero(turned)[0])
    flipped = _augmentation.apply_changes(
        pixels[:1],
        torch.tensor(affine[row : row + 1]),
        torch.tensor(tone[row : row + 1]),
    )
    torch.testing.assert_close(flipped, pixels[:1].flip(3), rtol=1e-5, atol=1e-3)


def test_changes_stay_as_mild_as_they_are_told():
    how = Augmentation(rotation=10, shift=0.1, scale=0.2, brightness=0.05, contrast=0.3)
    affine, tone = _augmentation.draw_changes(how, 1, [0] * 500, range(500))
    size = np.hypot(affine[:, 0, 0], affine[:, 1, 0])
    assert 1 / 1.2 - 1e-6 <= size.min() < 0.87
    assert 1.2 < size.max() <= 1 / 0.8 + 1e-6
    angle = np.degrees(np.arctan2(affine[:, 1, 0], affine[:, 0, 0]))
    assert 9 < np.abs(angle).max() <= 10.001
    assert 0.18 < np.abs(affine[:, :, 2]).max() <= 0.2
    assert 0.27 < np.abs(tone[:, 0] - 1).max() <= 0.3
    assert 0.045 < np.abs(tone[:, 1]).max() <= 0.05


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"rotation": -1}, "rotation must lie between 0 and 180"),
        ({"shift": 0.9}, "shift must lie between 0 and 0.5"),
        ({"flip_left_right": 1}, "flip_left_right must be a bool"),
    ],
)
def test_changes_that_cannot_be_meant_are_refused(how, told):
    with pytest.raises(ValueError, match=told):
        Augmentation(**how)


def test_one_of_several_texts_is_shown_and_all_have_their_turn():
    pairs = _texts.caption_texts([["a", "b", "c"], "d"], 2)
    shown = [pairs.shown(0, epoch, 3) for epoch in range(60)]
    assert set(shown) == {0, 1, 2}
    assert shown == [pairs.shown(0, epoch, 3) for epoch in range(60)]
    assert pairs.shown(1, 5, 3) == 3
    assert pairs.shown(0, None, 3) == 0


def labels_of(y):
    return _labels.check_labels(None, y, y)


def test_prompts_of_findings_say_what_is_there_every_second_time():
    prompts = {
        "nodule": {"positive": ["a nodule"], "negative": ["no nodule"]},
        "effusion": {"positive": ["an effusion"], "negative": ["no effusion"]},
        "device": {"positive": ["a wire"], "negative": ["no wire"]},
    }
    y = np.array([[1, 0, np.nan], [0, 0, 0], [0, 1, 1], [1, 1, 0]], float)
    pairs = _texts.prompt_texts(prompts, None, y, labels_of(y))
    named = [[pairs.texts[i] for i in ids] for ids in pairs.true]
    assert named[0] == ["a nodule", "no effusion"]
    assert sorted(pairs.texts[i] for i in pairs.unknown[0]) == ["a wire", "no wire"]
    assert named[1] == ["no nodule", "no effusion", "no wire"]
    shown = [pairs.texts[pairs.shown(0, epoch, 0)] for epoch in range(200)]
    # Half the time what is there, else anything that is true: 3 of 4 in the mean.
    assert 0.65 < shown.count("a nodule") / 200 < 0.85


def test_prompts_of_classes_fill_templates():
    prompts = {"ill": ["a nodule", "a mass"], "well": ["nothing"]}
    y = np.array(["well", "ill", "ill", "well"])
    pairs = _texts.prompt_texts(prompts, ["an X-ray of {}"], y, labels_of(y))
    assert [pairs.texts[i] for i in pairs.true[1]] == [
        "an X-ray of a nodule",
        "an X-ray of a mass",
    ]
    assert [pairs.texts[i] for i in pairs.true[0]] == ["an X-ray of nothing"]


def trained(checkpoint, train, towers=("image", "text"), n_blocks=1):
    from sk_medsiglip.encoder import find_checkpoint, load_network

    network = load_network(find_checkpoint(checkpoint), "float32")
    given = MedSigLIPFineTuner(
        MedSigLIPEmbedder(),
        train=train,
        towers="both" if len(towers) == 2 else "".join(towers) or "both",
        objective="contrastive" if towers else "classification",
        n_blocks=n_blocks,
        lora_rank=2,
    )
    _network.choose_trainable(
        network, _settings.Settings(**given.get_params(deep=False))
    )
    return network, {n for n, p in network.named_parameters() if p.requires_grad}


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_what_is_trained(checkpoint):
    every = {n for n, _ in trained(checkpoint, "full")[0].named_parameters()}
    assert trained(checkpoint, "full")[1] == every
    _, image_only = trained(checkpoint, "full", ("image",))
    assert image_only == {n for n in every if n.startswith("vision_model.")}
    _, head = trained(checkpoint, "head")
    assert {n.split(".")[0] + "." + n.split(".")[1] for n in head if "." in n} == {
        "vision_model.head",
        "text_model.head",
    }
    assert {"logit_scale", "logit_bias"} < head
    _, last = trained(checkpoint, "last_blocks")
    assert head < last
    layers = {n.split("layers.")[1].split(".")[0] for n in last if "layers." in n}
    assert layers == {"1"}
    _, low_rank = trained(checkpoint, "lora")
    assert all(".lora_A." in n or ".lora_B." in n for n in low_rank)
    # 2 towers of 2 layers, 4 products each, 2 matrices a product.
    assert len(low_rank) == 2 * 2 * 4 * 2
    assert trained(checkpoint, "head", ())[1] == set()


def test_more_blocks_than_there_are(checkpoint):
    with pytest.raises(ValueError, match="2 layers"):
        trained(checkpoint, "last_blocks", n_blocks=3)


def test_layers_further_down_move_more_slowly(checkpoint):
    network, _ = trained(checkpoint, "full")
    holder = torch.nn.Module()
    holder.siglip = network
    holder.classifier = torch.nn.Linear(4, 2)
    groups = _network.parameter_groups(
        holder,
        learning_rate=1.0,
        classifier_rate=5.0,
        weight_decay=0.1,
        layer_decay=0.5,
    )
    of = {
        id(p): (group["lr"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }
    named = dict(holder.named_parameters())
    assert len(of) == len(named)
    expected = {
        "classifier.weight": (5.0, 0.1),
        "classifier.bias": (5.0, 0.0),
        "siglip.logit_scale": (1.0, 0.0),
        "siglip.vision_model.head.probe": (1.0, 0.0),
        "siglip.vision_model.head.mlp.fc1.weight": (1.0, 0.1),
        "siglip.vision_model.post_layernorm.weight": (1.0, 0.0),
        "siglip.vision_model.encoder.layers.1.mlp.fc1.weight": (0.5, 0.1),
        "siglip.vision_model.encoder.layers.0.mlp.fc1.weight": (0.25, 0.1),
        "siglip.vision_model.embeddings.patch_embedding.weight": (0.125, 0.1),
        "siglip.text_model.embeddings.token_embedding.weight": (0.125, 0.1),
        "siglip.text_model.encoder.layers.1.layer_norm1.bias": (0.5, 0.0),
    }
    for name, pair in expected.items():
        assert of[id(named[name])] == pair, name


# ------------------------------------------------------------------ what is kept


def test_the_loss_is_the_share_of_the_spread_that_moved():
    rng = np.random.default_rng(0)
    now, before = rng.normal(size=(2, 5, 3))
    spread = np.array([0.1, 0.2, 0.3])
    given = [torch.from_numpy(one) for one in (now, before, spread)]
    expected = (((now - before) / spread) ** 2).mean(axis=0).sum()
    assert float(_losses.keep_loss(*given)) == pytest.approx(expected)
    assert float(_losses.keep_loss(given[0], given[0], given[2])) == 0


def test_scores_are_those_that_prompts_give():
    kept = _texts.kept_texts({"a": {"positive": ["x", "y"], "negative": "z"}})
    assert kept.texts == ["z", "x", "y"]
    np.testing.assert_allclose(kept.mix, [[-1, 0.5, 0.5]])
    kept = _texts.kept_texts({"a": {"positive": {"x": 3, "y": 1}, "negative": "z"}})
    np.testing.assert_allclose(kept.mix, [[-1, 0.75, 0.25]])
    kept = _texts.kept_texts({"one": ["x"], "two": ["y"]})
    np.testing.assert_allclose(kept.mix, [[0.5, -0.5], [-0.5, 0.5]])
    np.testing.assert_array_equal(_texts.kept_texts(["x", "y"]).mix, np.eye(2))


def test_kept_texts_take_turns():
    # Fifteen findings of two texts each: eight images look at four of them.
    rng = np.random.default_rng(0)
    mix = (np.eye(30)[1::2] - np.eye(30)[::2]).astype("f4")
    kept = _texts.KeptScores(
        mix, np.eye(30, dtype="f4"), rng.random((24, 15)), rng.random(15)
    )
    rows = np.arange(3, 11)
    seen = set()
    for epoch in range(40):
        drawn = kept.draw(rows, epoch, 0)
        ids = drawn["kept_ids"]
        assert len(ids) == 8
        findings = ids[::2] // 2
        assert drawn["kept_mix"].shape == (4, 8)
        np.testing.assert_array_equal(drawn["kept_mix"], mix[findings][:, ids])
        scores = kept.scores[rows][:, findings]
        np.testing.assert_array_equal(drawn["kept_scores"], scores)
        # Four stand for fifteen.
        squared = drawn["kept_spread"] ** 2
        np.testing.assert_allclose(squared, kept.spread[findings] ** 2 * 4 / 15)
        seen |= set(findings.tolist())
    assert seen == set(range(15))
    # One finding is looked at, however few images there are.
    assert len(kept.draw(rows[:1], 0, 0)["kept_ids"]) == 2


# ------------------------------------------------------------- names and messages


def test_medsiglip_is_known_by_its_sizes_too():
    sizes = Checkpoint("x", Path("x"), "r", 1152, 448, 14, 64)
    assert _save.is_medsiglip("/models/mine", sizes)
    assert not _save.is_medsiglip(
        "demo", Checkpoint("x", Path("x"), "r", 192, 128, 16, 64)
    )
    assert _save.is_medsiglip("google/medsiglip-448", None)


@pytest.mark.parametrize(
    ("changed", "told", "not_told"),
    [
        ({"gradient_checkpointing": True}, "batch_size=8 with accumulate=2", "gradie"),
        (
            {"gradient_checkpointing": True, "batch_size": 1, "train": "full"},
            "train='lora'",
            "batch_size=",
        ),
    ],
)
def test_only_settings_that_can_still_be_changed_are_named(changed, told, not_told):
    given = MedSigLIPFineTuner(MedSigLIPEmbedder(), **changed)
    settings = _settings.Settings(**given.get_params(deep=False))
    message = str(_settings.out_of_memory(settings, "cuda", bf16=True))
    assert told in message
    assert not_told not in message
    assert message.count("(3)") == 1
