"""Heatmaps: the formulas again by hand, places on the image, what they point at."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from joblib import Parallel, delayed
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

import sk_medsiglip.cli
from sk_medsiglip import (
    MedSigLIPEmbedder,
    MedSigLIPTextEmbedder,
    ZeroShotClassifier,
    make_zero_shot_pipeline,
)
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.embedding import find_facts, prepare_image
from sk_medsiglip.encoder import PATCH_METHODS, load_encoder, score_patches
from sk_medsiglip.exceptions import (
    ImageReadError,
    MissingDependencyError,
    OutOfMemoryError,
    PromptError,
)
from sk_medsiglip.prompts import load_prompt_set
from sk_medsiglip.zero_shot import HeatmapDisplay, prompt_heatmap

PAIRS = {
    "effusion": {"positive": "pleural effusion", "negative": "no pleural effusion"},
    "nodule": {"positive": ["a nodule", "a coin lesion"], "negative": "no nodule"},
}


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """Threads of so small a pass wait for each other where tests share the machine."""
    import torch

    torch.get_num_threads()  # torch sets its own number at a thread's first use
    with threadpool_limits(1, user_api="openmp"):
        yield


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (3, 56, 56, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def encoder(make_checkpoint):
    return load_encoder(make_checkpoint(image_size=56, layers=3), device="cpu")


@pytest.fixture(scope="module")
def texts(encoder):
    vectors = encoder.encode_texts(["pleural effusion", "a nodule"])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def phantoms():
    return make_chest_phantoms(60, random_state=20_002, return_masks=True)


@pytest.fixture(scope="module")
def pipe(phantoms):
    images = list(phantoms.images[:2])
    prompts = Path(sk_medsiglip.cli.__file__).with_name("phantom_prompts.json")
    return make_zero_shot_pipeline(load_prompt_set(prompts), model="demo").fit(images)


@pytest.fixture(scope="module")
def maps(phantoms, pipe):
    """Present minus absent of all phantoms, findings in the order of their masks."""
    pixels = np.repeat(phantoms.images[..., None], 3, axis=3)
    findings = list(pipe[-1].findings_)
    order = [findings.index(name) for name in phantoms.target_names]
    absent, present = pipe[-1].class_embeddings_[order].swapaxes(0, 1)
    encoder = load_encoder("demo", device="cpu")
    return {
        method: score_patches(encoder, pixels, present - absent, method=method)
        for method in PATCH_METHODS
    }


def layers_by_transformers(checkpoint, pixels):
    """A second copy of the network, its own pooling head, and each layer's patches."""
    import torch
    from transformers import SiglipModel

    network = SiglipModel.from_pretrained(
        checkpoint.folder, attn_implementation="eager"
    ).eval()
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    vision = network.vision_model
    with torch.no_grad():
        states = vision(pixel_values=values, output_hidden_states=True).hidden_states
        return vision.head, [vision.post_layernorm(state) for state in states]


def finish(head, pooled):
    return pooled + head.mlp(head.layernorm(pooled))


def cosines(vectors, texts):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True) @ texts.T


def test_value_is_the_head_at_one_patch_alone(encoder, pixels, texts):
    """torch's attention module, given a single key, has nothing else to attend to."""
    import torch

    head, layers = layers_by_transformers(encoder.checkpoint, pixels)
    expected = np.empty((3, 2, 16))
    with torch.no_grad():
        for image, patches in enumerate(layers[-1]):
            for i, patch in enumerate(patches):
                alone = head.attention(head.probe, patch[None, None], patch[None, None])
                vector = finish(head, alone[0])[0, 0].numpy()
                expected[image, :, i] = cosines(vector, texts)
    found = score_patches(encoder, pixels, texts)
    assert found.shape == (3, 2, 4, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.reshape(3, 2, 16), expected, atol=2e-6)
    assert found.std() > 0.01  # random weights, and still patches differ


def test_legrad_is_the_derivative_by_attention_weights(encoder, pixels, texts):
    """Automatic differentiation by the weights themselves, as the paper's hooks do."""
    import torch

    head, layers = layers_by_transformers(encoder.checkpoint, pixels)
    module = head.attention
    width, heads = module.embed_dim, module.num_heads
    texts_ = torch.from_numpy(texts)
    expected = np.zeros((3, 2, 16))
    for patches in layers[-2:]:
        q, k, v = (
            torch.nn.functional.linear(x, w, b)
            .unflatten(2, (heads, -1))
            .transpose(1, 2)
            for x, w, b in zip(
                (head.probe, patches, patches),
                module.in_proj_weight.split(width),
                module.in_proj_bias.split(width),
                strict=True,
            )
        )
        weights = (q @ k.mT / q.shape[3] ** 0.5).softmax(dim=3)
        weights = weights.detach().requires_grad_()
        pooled = module.out_proj((weights @ v.detach()).transpose(1, 2).flatten(2))
        vectors = torch.nn.functional.normalize(finish(head, pooled)[:, 0], dim=1)
        for k, column in enumerate((vectors @ texts_.T).unbind(dim=1)):
            (by_weight,) = torch.autograd.grad(column.sum(), weights, retain_graph=True)
            expected[:, k] += by_weight[:, :, 0].clamp(min=0).mean(dim=1).numpy()
    found = score_patches(encoder, pixels, texts, method="legrad")
    np.testing.assert_allclose(found.reshape(3, 2, 16), expected, rtol=1e-4, atol=1e-7)


def test_value_of_the_only_patch_is_the_score_itself(make_checkpoint):
    encoder = load_encoder(make_checkpoint(image_size=14), device="cpu")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 14, 14, 3), dtype=np.uint8)
    texts = encoder.encode_texts(["fluid", "air"])
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    found = score_patches(encoder, pixels, texts)[..., 0, 0]
    np.testing.assert_allclose(
        found, cosines(encoder.encode_images(pixels), texts), atol=1e-6
    )


def test_several_batches_are_the_same_as_one_image_at_a_time(encoder, pixels, texts):
    many = np.tile(pixels, (25, 1, 1, 1))
    assert len(many) > encoder.image_batch_size
    for method in PATCH_METHODS:
        found = score_patches(encoder, many, texts, method=method)
        single = score_patches(encoder, pixels[1:2], texts[:1], method=method)
        np.testing.assert_allclose(found[[1, 73], :1], single.repeat(2, 0), atol=2e-6)


@pytest.mark.parametrize("method", PATCH_METHODS)
def test_the_encoder_is_as_it_was(encoder, pixels, texts, method):
    import torch

    vision = encoder._towers._network.vision_model
    before = encoder.encode_images(pixels)
    first = score_patches(encoder, pixels, texts, method=method)
    assert np.array_equal(score_patches(encoder, pixels, texts, method=method), first)
    assert np.array_equal(encoder.encode_images(pixels), before)
    assert not any(p.requires_grad or p.grad is not None for p in vision.parameters())
    assert not any(module._forward_hooks for module in vision.modules())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("method", PATCH_METHODS)
def test_bfloat16_agrees(encoder, pixels, texts, method):
    rough = load_encoder(encoder.checkpoint.folder, device="cpu", dtype="bfloat16")
    exact = score_patches(encoder, pixels, texts, method=method)
    found = score_patches(rough, pixels, texts, method=method)
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.99


def test_scores_say_what_they_need(encoder, pixels, texts, monkeypatch):
    with pytest.raises(ValueError, match="'rollout'"):
        score_patches(encoder, pixels, texts, method="rollout")

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "_towers", object())
        patch.setattr(encoder, "engine", "openvino")
        with pytest.raises(ValueError, match="openvino.*engine='torch'"):
            score_patches(encoder, pixels, texts)

    def full(values):
        raise MemoryError

    monkeypatch.setattr(encoder._towers, "send", full)
    with pytest.raises(OutOfMemoryError, match="3 images.*bfloat16"):
        score_patches(encoder, pixels, texts)


def test_negative_is_the_difference_and_prompts_are_averaged(phantoms):
    image = phantoms.images[0]

    def heat(prompt, **params):
        return prompt_heatmap(image, prompt, model="demo", **params)

    one, other = heat("pleural effusion"), heat("no pleural effusion")
    both = heat("pleural effusion", negative="no pleural effusion")
    assert both.shape == (8, 8)
    np.testing.assert_allclose(both, one - other, atol=1e-6)
    assert np.array_equal(heat(["pleural effusion"]), one)
    mean = heat(["pleural effusion", "no pleural effusion"])
    along = one + other
    np.testing.assert_allclose(mean / mean.max(), along / along.max(), atol=1e-5)


def test_every_kind_of_image_gives_the_same_map(phantoms, tmp_path):
    image = phantoms.images[0]
    path = tmp_path / "phantom.png"
    Image.fromarray(image).save(path)
    sources = [image, path, str(path), path.read_bytes(), Image.open(path)]
    maps = [prompt_heatmap(s, "pleural effusion", model="demo") for s in sources]
    assert all(np.array_equal(other, maps[0]) for other in maps)


@pytest.mark.parametrize("prompt", ["", " ", [], ["a nodule", ""], None, 3, [3]])
def test_no_prompt(phantoms, prompt):
    with pytest.raises(PromptError, match="prompt"):
        prompt_heatmap(phantoms.images[0], prompt, model="demo")
    if prompt is not None:
        with pytest.raises(PromptError, match="negative"):
            prompt_heatmap(
                phantoms.images[0], "a nodule", negative=prompt, model="demo"
            )


def test_what_cannot_be_read_or_meant(phantoms, tmp_path):
    frames = tmp_path / "frames.tiff"
    shades = [Image.fromarray(image) for image in phantoms.images[:2]]
    shades[0].save(frames, save_all=True, append_images=shades[1:])
    with pytest.raises(ImageReadError, match="frame"):
        prompt_heatmap(frames, "a nodule", model="demo")
    second = prompt_heatmap(frames, "a nodule", model="demo", frame=1)
    assert np.array_equal(
        second, prompt_heatmap(phantoms.images[1], "a nodule", model="demo")
    )
    with pytest.raises(ImageReadError, match="missing.png"):
        prompt_heatmap(tmp_path / "missing.png", "a nodule", model="demo")
    with pytest.raises(ValueError, match="'resize' parameter"):
        prompt_heatmap(phantoms.images[0], "a nodule", model="demo", resize="cubic")
    with pytest.raises(ValueError, match="'value'"):
        prompt_heatmap(phantoms.images[0], "a nodule", model="demo", method="cam")


def test_the_pixels_are_those_of_the_embedding(checkpoint):
    """With one patch the map is the score, whatever the recipe."""
    image = np.random.default_rng(0).integers(0, 256, (40, 90), dtype=np.uint8)
    maps = [
        prompt_heatmap(image, "fluid", model=checkpoint, resize=resize, pad=pad)
        for resize in ("medsiglip", "processor")
        for pad in (False, True)
    ]
    encoder = load_encoder(checkpoint, device="cpu")
    text = encoder.encode_texts(["fluid"])
    for heatmap, (resize, pad) in zip(
        maps,
        [(r, p) for r in ("medsiglip", "processor") for p in (False, True)],
        strict=True,
    ):
        embedder = MedSigLIPEmbedder(checkpoint, resize=resize, pad=pad)
        pixels = prepare_image(embedder, find_facts(checkpoint), image)
        expected = score_patches(encoder, pixels[None], text / np.linalg.norm(text))
        np.testing.assert_allclose(heatmap, expected[0, 0], atol=1e-6)
    assert not np.allclose(maps[0], maps[1])


def test_threads_get_the_same_maps(phantoms):
    def heat(i, method):
        return prompt_heatmap(phantoms.images[i], "nodule", model="demo", method=method)

    jobs = [(i, method) for i in range(3) for method in PATCH_METHODS]
    alone = [heat(*job) for job in jobs]
    together = Parallel(n_jobs=4, prefer="threads")(delayed(heat)(*job) for job in jobs)
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_maps_point_at_findings(phantoms, maps):
    """Against the centre and chance; half a patch of tolerance, as in the benchmark."""
    from scipy.ndimage import distance_transform_edt

    shares = {"value": [], "legrad": [], "centre": [], "chance": []}
    for finding in range(len(phantoms.target_names)):
        rows = np.flatnonzero(phantoms.masks[:, finding].any(axis=(1, 2)))
        near = np.stack(
            [distance_transform_edt(~phantoms.masks[row, finding]) <= 8 for row in rows]
        )
        for method, found in maps.items():
            best = found[rows, finding].reshape(len(rows), 64).argmax(axis=1)
            y, x = 16 * (best // 8) + 8, 16 * (best % 8) + 8
            shares[method].append(near[np.arange(len(rows)), y, x].mean())
        shares["centre"].append(near[:, 64, 64].mean())
        shares["chance"].append(near.mean())
    mean = {name: np.mean(each) for name, each in shares.items()}
    assert mean["value"] > 0.9
    assert mean["legrad"] > 0.85
    assert mean["centre"] < 0.4
    assert mean["chance"] < 0.2
    assert min(shares["value"]) > 0.7


def test_absent_findings_are_mostly_not_drawn(phantoms, maps):
    highest = maps["value"].max(axis=(2, 3))
    for finding, name in enumerate(phantoms.target_names):
        has = phantoms.target[:, finding] == 1
        assert np.median(highest[has, finding]) > 0.1, name
        assert np.median(highest[~has, finding]) < 0.1, name


@pytest.mark.parametrize(
    ("shape", "pad", "square"),
    [
        ((400, 400), False, (300, 60)),
        ((200, 600), False, (150, 480)),
        ((200, 600), True, (150, 480)),
        ((600, 200), True, (90, 150)),
        ((3000, 1000), True, (420, 300)),
    ],
)
def test_a_place_on_the_image_is_drawn_there(pyplot, shape, pad, square):
    """A bright square is put through the resize; what it becomes is the map."""
    from sk_medsiglip.images import read_resized

    image = np.zeros(shape, np.uint8)
    half = max(shape) // 20
    y, x = square
    image[y - half : y + half, x - half : x + half] = 255
    seen = read_resized(image, 128, pad=pad)[..., 0].astype(float)
    heatmap = seen.reshape(32, 4, 32, 4).mean(axis=(1, 3))
    display = HeatmapDisplay(image, heatmap, pad=pad).plot()
    drawn = np.asarray(display.im_.get_array())
    step = -(-max(shape) // 1024)
    assert drawn.shape == tuple(-(-length // step) for length in shape)
    weights = drawn / drawn.sum()
    found = [
        step * (weights.sum(axis=1 - axis) @ np.arange(drawn.shape[axis]))
        for axis in (0, 1)
    ]
    np.testing.assert_allclose(found, square, atol=max(shape) / 64)
    left, right, bottom, top = display.im_.get_extent()
    assert (right - left, bottom - top) == (shape[1], shape[0])


def test_display_draws_and_warns_of_itself(pyplot, phantoms):
    display = HeatmapDisplay.from_prompt(
        phantoms.images[0], ["a nodule", "a coin lesion"], model="demo"
    )
    assert display.figure_ is display.ax_.figure
    assert display.ax_.get_title() == "a nodule, a coin lesion"
    assert "a hint, not a localisation" in display.ax_.get_xlabel()
    assert "always the highest" in display.ax_.get_xlabel()
    alpha = display.im_.get_alpha()
    assert alpha.min() == 0
    assert alpha.max() <= 0.6
    display.figure_.canvas.draw()
    figure, ax = pyplot.subplots()
    again = display.plot(ax, alpha=0.3, cmap="viridis", colorbar=False)
    assert again is display
    assert display.ax_ is ax
    assert len(ax.child_axes) == 0


def test_zero_of_a_difference_is_where_drawing_begins(pyplot):
    image = np.zeros((16, 16), np.uint8)
    below = HeatmapDisplay(image, np.full((4, 4), -1.0), relative=False).plot()
    assert below.im_.get_alpha().max() == 0
    heatmap = np.array([[-1.0, 0.5], [0.0, 0.0]])
    partly = HeatmapDisplay(image, heatmap, relative=False).plot()
    assert partly.im_.get_clim() == (0, 1)
    assert partly.im_.get_alpha().max() == pytest.approx(0.3)
    flat = HeatmapDisplay(image, np.full((4, 4), 0.2)).plot()
    assert flat.im_.get_alpha().max() == 0


def test_from_estimator_takes_the_recipe_of_the_pipeline(pyplot, phantoms):
    image = phantoms.images[0][:, 20:100]
    pipe = make_zero_shot_pipeline(PAIRS, model="demo", pad=True, cache=False)
    pipe.fit([image])
    display = HeatmapDisplay.from_estimator(pipe, image, "nodule")
    expected = prompt_heatmap(
        image,
        PAIRS["nodule"]["positive"],
        negative=PAIRS["nodule"]["negative"],
        model="demo",
        pad=True,
    )
    np.testing.assert_allclose(display.heatmap, expected, atol=1e-6)
    assert display.title == "nodule"
    assert display.pad
    assert not display.relative
    gradient = HeatmapDisplay.from_estimator(pipe, image, "nodule", method="legrad")
    assert gradient.relative
    assert len(pickle.dumps(pipe)) < 20_000


def test_from_estimator_finds_the_label_itself(pyplot, phantoms, pipe):
    image = phantoms.images[int(np.flatnonzero(phantoms.target[:, 0])[0])]
    scores = pipe.predict_proba([image])[0]
    likeliest = pipe[-1].findings_[scores.argmax()]
    assert HeatmapDisplay.from_estimator(pipe, image).title == likeliest

    single = make_zero_shot_pipeline({"nodule": PAIRS["nodule"]}, model="demo")
    single.fit([image])
    assert HeatmapDisplay.from_estimator(single, image).title == "nodule"

    classes = {1: "pleural effusion", 2: "a nodule", 0: "normal x-ray"}
    chosen = make_zero_shot_pipeline(classes, model="demo").fit([image])
    display = HeatmapDisplay.from_estimator(chosen, image)
    label = chosen.predict([image])[0]
    assert display.title == str(label)
    expected = prompt_heatmap(image, classes[label], model="demo")
    np.testing.assert_allclose(display.heatmap, expected, atol=1e-6)
    assert display.relative


@pytest.mark.parametrize("several", [True, False])
def test_from_estimator_maps_the_prompts_that_scored(pyplot, phantoms, several):
    """With ensemble="max" each answer is as like as its likest prompt, not the mean."""
    prompts = {
        "nodule": {
            "positive": ["a heart", "a nodule", "a rib"],
            "negative": ["an enlarged heart", "no nodule"],
        },
        "effusion": {"positive": ["pleural effusion", "a rib"], "negative": "a heart"},
    }
    if not several:
        del prompts["effusion"]
    pipe = make_zero_shot_pipeline(prompts, ensemble="max", model="demo")
    pipe.fit(list(phantoms.images[:2]))
    texts = MedSigLIPTextEmbedder("demo")
    for image in phantoms.images[:6]:
        vector = pipe[0].transform([image])[0]

        def likest(side, vector=vector):
            listed = [side] if isinstance(side, str) else side
            return listed[int(np.argmax(texts.transform(listed) @ vector))]

        for name, pair in prompts.items():
            expected = prompt_heatmap(
                image,
                likest(pair["positive"]),
                negative=likest(pair["negative"]),
                model="demo",
            )
            found = HeatmapDisplay.from_estimator(pipe, image, name).heatmap
            np.testing.assert_allclose(found, expected, atol=1e-6)
        pyplot.close("all")


def test_from_estimator_maps_the_likest_prompt_of_a_class(pyplot, phantoms):
    prompts = {"wet": ["a rib", "pleural effusion"], "dry": "normal x-ray"}
    pipe = make_zero_shot_pipeline(prompts, ensemble="max", model="demo")
    image = phantoms.images[int(np.flatnonzero(phantoms.target[:, 1])[0])]
    found = HeatmapDisplay.from_estimator(pipe.fit([image]), image, "wet").heatmap
    maps = [prompt_heatmap(image, text, model="demo") for text in prompts["wet"]]
    assert min(np.abs(found - one).max() for one in maps) < 1e-6


def test_from_estimator_takes_a_search_by_its_best_prompts(pyplot, phantoms):
    from sk_medsiglip.zero_shot import PromptSearchCV

    images, y = list(phantoms.images), phantoms.target[:, 1]
    pipe = make_pipeline(
        MedSigLIPEmbedder("demo"),
        PromptSearchCV({"effusion": PAIRS["effusion"]}, model="demo", max_steps=1),
    )
    with pytest.raises(NotFittedError):
        HeatmapDisplay.from_estimator(pipe, images[0])
    display = HeatmapDisplay.from_estimator(pipe.fit(images, y), images[0])
    expected = prompt_heatmap(
        images[0],
        PAIRS["effusion"]["positive"],
        negative=PAIRS["effusion"]["negative"],
        model="demo",
    )
    np.testing.assert_allclose(display.heatmap, expected, atol=1e-6)
    assert display.title == "effusion"


# ------------------------------------------------------------- scores of parts: bags


class Cells(BaseEstimator):
    """Cells of an image as a bag, by the mean and spread of their pixels."""

    def __init__(self, embedder=None, grid=4, pooled_row=False):
        self.embedder, self.grid, self.pooled_row = embedder, grid, pooled_row

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        size = 128 // self.grid
        images = np.stack([np.asarray(one, float) for one in X])
        parts = images.reshape(len(images), self.grid, size, self.grid, size)
        parts = parts.swapaxes(2, 3).reshape(len(images), -1, size * size)
        bags = np.stack([parts.mean(axis=2), parts.std(axis=2)], axis=2)
        if self.pooled_row:
            bags = np.concatenate([bags, bags.mean(axis=1, keepdims=True)], axis=1)
        return bags.astype(np.float32)


class Brightest(ClassifierMixin, BaseEstimator):
    """Tells bags by their brightest instance; several findings by several features."""

    def __init__(self, n_findings=1):
        self.n_findings = n_findings

    def fit(self, X, y=None):
        self.classes_ = np.array([0, 1])
        if self.n_findings > 1:
            self.classes_ = np.tile([0, 1], (self.n_findings, 1))
            self.label_names_ = np.array(["bright", "uneven"])
        return self

    def instance_scores(self, X):
        return X[..., 0] if self.n_findings == 1 else X / X.max()

    def predict_proba(self, X):
        return self.instance_scores(X).max(axis=1)


@pytest.mark.parametrize("pooled_row", [False, True])
def test_from_estimator_shows_the_scores_of_cells(pyplot, phantoms, pooled_row):
    images = list(phantoms.images[:3])
    cells = Cells(MedSigLIPEmbedder("demo"), pooled_row=pooled_row)
    pipe = make_pipeline(cells, Brightest()).fit(images)
    display = HeatmapDisplay.from_estimator(pipe, images[0])
    expected = cells.transform(images[:1])[0, :16, 0].reshape(4, 4)
    np.testing.assert_allclose(display.heatmap, expected, rtol=1e-6)
    assert display.title == "1"
    assert display.relative
    several = make_pipeline(cells, Brightest(2)).fit(images)
    scores = several[-1].instance_scores(cells.transform(images[:1]))[0]
    named = HeatmapDisplay.from_estimator(several, images[0], "uneven")
    np.testing.assert_allclose(named.heatmap.ravel(), scores[:16, 1])
    found = HeatmapDisplay.from_estimator(several, images[0])
    assert found.title == ["bright", "uneven"][scores.max(axis=0).argmax()]
    with pytest.raises(ValueError, match="unknown"):
        HeatmapDisplay.from_estimator(several, images[0], "nodule")
    by_hand = HeatmapDisplay.from_scores(images[0], scores[:, 0], ax=found.ax_)
    np.testing.assert_allclose(by_hand.heatmap.ravel(), scores[:16, 0])
    assert by_hand.ax_ is found.ax_


def test_from_slices_frames_the_slice_that_decided(pyplot):
    rng = np.random.default_rng(0)
    slices = list(rng.integers(0, 255, (7, 300, 200), dtype=np.uint8))
    slices[2] = np.stack([slices[2][:100]] * 3, axis=2)  # of another shape
    scores = np.array([0.1, 0.2, np.nan, 0.9, 0.3, 0.0, 0.4, np.nan, np.nan])
    display = HeatmapDisplay.from_slices(slices, scores, n_columns=3)
    assert display.title == "slice 4 of 7 has the highest score"
    np.testing.assert_array_equal(display.heatmap.ravel()[:7], scores[:7])
    assert np.isnan(display.heatmap.ravel()[7:]).all()
    height, width = np.array(display.image.shape[:2]) // 3
    drawn = np.asarray(display.im_.get_array())
    alpha = display.im_.get_alpha()
    assert drawn.shape == display.image.shape[:2]
    for i, score in enumerate(scores):
        row, column = divmod(i, 3)
        place = np.s_[row * height : (row + 1) * height]
        own = place, np.s_[column * width : (column + 1) * width]
        if np.isnan(score):
            assert (alpha[own] == 0).all()
        else:
            assert (drawn[own] == np.float32(score)).all()
    assert alpha.max() == pytest.approx(0.6)
    (frame,) = display.ax_.lines
    assert frame.get_xdata()[0] == -0.5
    assert frame.get_ydata()[0] == height - 0.5
    display.figure_.canvas.draw()
    assert HeatmapDisplay.from_slices(slices[:1], [1.0]).heatmap.shape == (1, 1)


def test_scores_that_fit_no_picture(phantoms):
    image = phantoms.images[0]
    with pytest.raises(ValueError, match="square"):
        HeatmapDisplay.from_scores(image, np.zeros(12))
    with pytest.raises(ValueError, match="square"):
        HeatmapDisplay.from_scores(image, np.zeros((3, 4)))
    for scores in (np.zeros(3), np.zeros(5), np.zeros((4, 1))):
        with pytest.raises(ValueError, match="4 slices"):
            HeatmapDisplay.from_slices([image] * 4, scores)
    with pytest.raises(ValueError, match="NaN"):
        HeatmapDisplay.from_slices([image] * 2, [np.nan] * 2)


def test_from_estimator_says_what_it_needs(phantoms, pipe):
    image = phantoms.images[0]
    with pytest.raises(ValueError, match="fracture"):
        HeatmapDisplay.from_estimator(pipe, image, "fracture")
    with pytest.raises(NotFittedError):
        HeatmapDisplay.from_estimator(
            make_zero_shot_pipeline(PAIRS, model="demo"), image, "nodule"
        )
    for other in (
        make_pipeline(MedSigLIPEmbedder("demo"), LogisticRegression()),
        ZeroShotClassifier(PAIRS, model="demo"),
        "pipe",
    ):
        with pytest.raises(TypeError, match="make_zero_shot_pipeline"):
            HeatmapDisplay.from_estimator(other, image)


def test_another_engine_is_replaced_by_torch(pyplot, phantoms):
    image = phantoms.images[0]
    pipe = make_zero_shot_pipeline(PAIRS, model="demo", device="cpu").fit([image])
    expected = HeatmapDisplay.from_estimator(pipe, image, "nodule").heatmap
    pipe[0].set_params(engine="openvino")
    found = HeatmapDisplay.from_estimator(pipe, image, "nodule").heatmap
    assert np.array_equal(found, expected)


def test_without_matplotlib_the_numbers_still_come(monkeypatch, phantoms):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    image = phantoms.images[0]
    assert prompt_heatmap(image, "a nodule", model="demo").shape == (8, 8)
    with pytest.raises(MissingDependencyError, match=r'"sk-medsiglip\[plot\]"'):
        HeatmapDisplay.from_prompt(image, "a nodule", model="demo")
