"""Build the files of a release: wheel, sdist, list of components and provenance.

Run ``python -m release.build --url https://... [--out dist]`` in a clone without
changes, in an environment with the dependency group ``release``. The address of the
project is given here and nowhere else: links of the README are relative, which a
package index cannot follow, so they and ``[project.urls]`` are written into a copy of
the commit, from which everything is built. Nothing is uploaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
#: Links to files of the repository: not to a heading, and not to another server.
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!#|[a-z]+:)([^)\s]+)\)")


def main() -> None:
    """Build the release of the commit that is checked out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--url", required=True, help="public address of the repository")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument(
        "--environment",
        type=Path,
        default=ROOT / ".venv",
        help="virtual environment with the package and its extras, whose components "
        "are listed",
    )
    args = parser.parse_args()
    url = check_url(args.url)
    python = args.environment / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"{args.environment} is not a virtual environment.")
    if git("status", "--porcelain"):
        raise SystemExit("there are changes that are not committed: commit them first.")
    commit = git("rev-parse", "HEAD")
    args.out.mkdir(parents=True, exist_ok=True)
    if any(args.out.iterdir()):
        raise SystemExit(f"{args.out} is not empty: choose another folder.")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        copy_commit(commit, source)
        write_addresses(source, url, commit)
        run("build", "--outdir", str(args.out.resolve()), folder)
    built = sorted(args.out.iterdir())
    run("twine", "check", "--strict", *map(str, built))
    sbom = args.out / "sbom.cdx.json"
    run(
        "cyclonedx_py", "environment", str(python),
        "--pyproject", str(ROOT / "pyproject.toml"),
        "--output-reproducible", "--of", "JSON", "-o", str(sbom),
    )  # fmt: skip
    provenance = args.out / "provenance.json"
    provenance.write_text(json.dumps(describe(built, url, commit), indent=2) + "\n")
    sums = "".join(
        f"{digest(file)}  {file.name}\n" for file in [*built, sbom, provenance]
    )
    (args.out / "SHA256SUMS").write_text(sums)
    print(sums, end="")


def check_url(url: str) -> str:
    """Return an address without the slash at its end, or end with an error."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or not parts.path.strip("/"):
        raise SystemExit(
            f"--url must be the https address of the repository, got {url!r}."
        )
    return url.rstrip("/")


def copy_commit(commit: str, folder: Path) -> None:
    """Write the files of a commit into a folder."""
    archive = folder / "commit.tar"
    git("archive", "-o", str(archive), commit)
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    archive.unlink()


def write_addresses(folder: Path, url: str, commit: str) -> None:
    """Write the project's address into its metadata and the links of its README."""
    readme = folder / "README.md"
    readme.write_text(absolute_links(readme.read_text(), url, commit))
    pyproject = folder / "pyproject.toml"
    text = pyproject.read_text()
    if "\n[project.urls]" in text:
        raise SystemExit("pyproject.toml has [project.urls]: --url is its only place.")
    pages = {
        "Source": url,
        "Issues": f"{url}/issues",
        "Documentation": f"{url}/blob/{commit}/docs/index.md",
    }
    lines = "".join(f'{name} = "{address}"\n' for name, address in pages.items())
    section = "[project.optional-dependencies]"
    text = text.replace(section, f"[project.urls]\n{lines}\n{section}", 1)
    pyproject.write_text(text)


def absolute_links(text: str, url: str, commit: str) -> str:
    """Return Markdown whose links to files are addresses of a commit's files."""

    def absolute(found: re.Match[str]) -> str:
        mark, words, path = found.groups()
        kind = "raw" if mark else "blob"
        return f"{mark}[{words}]({url}/{kind}/{commit}/{path})"

    return _LINK.sub(absolute, text)


def describe(built: list[Path], url: str, commit: str) -> dict[str, object]:
    """Return the provenance of files, a statement of in-toto with SLSA's predicate."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": file.name, "digest": {"sha256": digest(file)}} for file in built
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{url}/blob/{commit}/release/build.py",
                "externalParameters": {"url": url},
                "resolvedDependencies": [
                    {"uri": f"git+{url}", "digest": {"gitCommit": commit}}
                ],
            },
            "runDetails": {
                "builder": {"id": f"python {platform.python_version()}"},
                "metadata": {"finishedOn": datetime.now(UTC).isoformat()},
            },
        },
    }


def digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def git(*arguments: str) -> str:
    """Return the output of git in the clone."""
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def run(module: str, *arguments: str) -> None:
    """Run a module of this environment."""
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


if __name__ == "__main__":
    main()
