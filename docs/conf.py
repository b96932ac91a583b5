"""Sphinx: one site from the Markdown pages, the gallery, the notebooks and docstrings.

``make docs`` builds it into ``build/site``, warnings as errors. What is made on the way
(API stubs, the gallery's pages, notebooks that were run, the change log) goes to
``docs/generated``. For a quick look without running anything::

    sphinx-build -D plot_gallery=0 -D run_notebooks=0 docs build/site

Built pages load nothing from other servers, and the build needs no network.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
from sphinx_gallery.sorting import FileNameSortKey

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_site"), str(HERE.parent)]

# Examples and notebooks meet an empty store, never the reader's own; no network.
_STORE = tempfile.TemporaryDirectory(prefix="sk-medsiglip-docs-")
os.environ["SK_MEDSIGLIP_CACHE"] = _STORE.name
os.environ["HF_HUB_OFFLINE"] = "1"
mpl.use("Agg")

from sk_medsiglip import __version__  # noqa: E402

project = "sk_medsiglip"
author = "The sk_medsiglip developers"
copyright = f"{author}, Apache-2.0. Not a medical device"
version = release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    # Our own, in docs/_site.
    "made_pages",
    "public_members",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["gallery/*", "_site/*", "generated/gallery/*.ipynb"]
templates_path = ["_templates"]
suppress_warnings = ["config.cache"]

# -- Markdown ---------------------------------------------------------------------

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 4

# -- Docstrings -------------------------------------------------------------------

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections say them in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

# -- Gallery ----------------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": str(HERE / "gallery"),
    "gallery_dirs": "generated/gallery",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sk_medsiglip",),
    "within_subsection_order": FileNameSortKey,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "capture_repr": ("_repr_html_",),
    "write_computation_times": False,
    "reset_modules": ("matplotlib", "gallery_rules.warnings_are_errors"),
    "image_srcset": ["2x"],
    "thumbnail_size": (320, 224),
}

# -- Pages ------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = f"sk_medsiglip {__version__}"
html_favicon = "_static/mark.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {
    # Pages without neighbours need no list of them.
    **dict.fromkeys(["index", "install", "quick_start", "recipes", "faq"], []),
    **dict.fromkeys(["glossary", "benchmarks"], []),
    **dict.fromkeys(["generated/changes", "generated/contributing"], []),
    "generated/command_line": [],
}
html_theme_options = {
    "logo": {
        "text": "sk_medsiglip",
        "image_light": "_static/mark.svg",
        "image_dark": "_static/mark.svg",
    },
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 7,
    "show_toc_level": 1,
    "navigation_depth": 3,
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
