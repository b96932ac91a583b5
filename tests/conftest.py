"""Fixtures: real checkpoints of a few kilobytes, and where the shared data lies."""

import os
import shutil
from pathlib import Path

import pytest

# Beside the repository, not in it: real labelled X-rays, the published tokenizer.
SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"

# Fixtures hold no tests or doctests, and as modules all of these files have one name.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

# Reasons for which a test may be skipped even where everything should be there.
_SKIPS_ALLOWED_ON_CI = (
    "needs a CUDA device",
    "runs on Windows only",
    # The same failure is tested by a limit on file sizes.
    "mounting a small disk is not permitted here",
    "shared/data is not beside this checkout",
    "SCIPY_ARRAY_API is not set",  # scikit-learn's own check of array-API input
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Under CI=true, a skip because something is missing is a failure."""
    report = yield
    if (
        os.environ.get("CI") == "true"
        and report.skipped
        and not hasattr(report, "wasxfail")
    ):
        reason = str(report.longrepr)
        if not any(allowed in reason for allowed in _SKIPS_ALLOWED_ON_CI):
            report.outcome = "failed"
            report.longrepr = f"skipped on CI, where nothing may be missing: {reason}"
    return report


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real data; skip where this checkout has none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("shared/data is not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory):
    """Return a function that writes a small SigLIP checkpoint with random weights."""
    import torch
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    from sk_medsiglip.encoder import DEMO_FOLDER

    def make(
        *,
        seed=0,
        width=32,
        text_width=32,
        image_size=28,
        patch_size=14,
        layers=2,
        tokenizer=None,
        vocab_size=32000,
    ):
        folder = tmp_path_factory.mktemp("checkpoint")
        torch.manual_seed(seed)
        tower = {
            "num_hidden_layers": layers,
            "num_attention_heads": 2,
        }
        config = SiglipConfig(
            vision_config={
                **tower,
                "hidden_size": width,
                "intermediate_size": 2 * width,
                "image_size": image_size,
                "patch_size": patch_size,
            },
            text_config={
                **tower,
                "hidden_size": text_width,
                "intermediate_size": 2 * text_width,
                "projection_size": width,
                "vocab_size": vocab_size,
                "max_position_embeddings": 64,
            },
        )
        model = SiglipModel(config)
        with torch.no_grad():
            # Random weights give nearly equal vectors; spread them, so that a test
            # that mixes rows up cannot pass.
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            model.logit_scale.fill_(2.3)
            model.logit_bias.fill_(-10.0)
        model.save_pretrained(folder)
        SiglipImageProcessorPil(
            size={"height": image_size, "width": image_size},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ).save_pretrained(folder)
        source = Path(tokenizer or DEMO_FOLDER)
        for name in (
            "spiece.model",
            "tokenizer_config.json",
            "special_tokens_map.json",
        ):
            if (source / name).exists():
                shutil.copyfile(source / name, folder / name)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint):
    """A small random checkpoint; do not write to it."""
    return make_checkpoint()


@pytest.fixture(scope="module")
def one_thread():
    """Keep torch to one thread: those of a shared pass wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store(tmp_path):
    """An empty store of embeddings for one test."""
    from sk_medsiglip.cache import EmbeddingCache

    cache = EmbeddingCache(tmp_path / "store")
    yield cache
    cache.close()


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    """A store of embeddings for all tests of a file."""
    from sk_medsiglip.cache import EmbeddingCache

    cache = EmbeddingCache(tmp_path_factory.mktemp("store"))
    yield cache
    cache.close()


@pytest.fixture(scope="session")
def phantoms():
    """400 phantoms that neither training nor benchmarks use; do not change them."""
    from sk_medsiglip.datasets import make_chest_phantoms

    return make_chest_phantoms(400, random_state=31_007, return_masks=True)


@pytest.fixture(scope="session")
def phantom_vectors(phantoms):
    """Embeddings of the phantoms by the demonstration model; do not change them."""
    from sk_medsiglip.embedding import MedSigLIPEmbedder

    return MedSigLIPEmbedder("demo").transform(phantoms.images)


@pytest.fixture
def pyplot():
    """matplotlib's pyplot without a screen."""
    matplotlib = pytest.importorskip(
        "matplotlib", reason="matplotlib is not installed", minversion="3.9"
    )
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


@pytest.fixture(scope="module")
def browser():
    """A real browser without a window; it reports requests and its console."""
    missing = "no browser: apt-get install chromium chromium-driver"
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip(missing)
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # The user of a container is root, whom chromium's sandbox refuses.
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    # Else it looks for updates in the background.
    for argument in ("no-first-run", "disable-background-networking", "disable-sync"):
        options.add_argument(f"--{argument}")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()
