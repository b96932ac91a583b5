"""``sk-medsiglip report``: saved classifiers and a test set to one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import bar, model_notice, say
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.cli._predict import ClassifierArgument
from sk_medsiglip.cli._written_files import check_out, typed_command


@options.with_options
def report(
    context: typer.Context,
    classifier: ClassifierArgument,
    source: Annotated[
        Path,
        typer.Argument(
            help="CSV file of test images with their labels, or a folder with a "
            "sub-folder a class."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="HTML file to write.")
    ] = Path("report.html"),
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            "--label-column",
            help="Column of classes, or of 0 and 1 for a finding; repeat it. Default: "
            "the classifier's findings, or label.",
        ),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(
            "--group-column",
            help="Column of patients: intervals count them, and patients who are in "
            "other files too are found.",
        ),
    ] = None,
    subgroup_column: Annotated[
        list[str] | None,
        typer.Option(
            "--subgroup-column",
            help="Column of sex, age, scanner, site; repeat it. Numbers of many values "
            "are cut into quarters.",
        ),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            "--compare", help="Another saved classifier to compare; repeat it."
        ),
    ] = None,
    train: Annotated[
        Path | None, typer.Option("--train", help="Training data, to look for leakage.")
    ] = None,
    tune: Annotated[
        Path | None,
        typer.Option(
            "--tune", help="Tuning data: other images, to choose thresholds on."
        ),
    ] = None,
    sensitivity: Annotated[
        float,
        typer.Option(
            "--sensitivity",
            help="Target of the thresholds; in the mean, new patients reach it.",
        ),
    ] = 0.95,
    prevalence: Annotated[
        float | None,
        typer.Option(
            "--prevalence",
            help="Share of patients with the label where the classifier will be used, "
            "such as 0.02: PPV and NPV at the thresholds are shown for it too.",
        ),
    ] = None,
    show_mistakes: Annotated[
        int,
        typer.Option(
            "--show-mistakes",
            min=0,
            help="Number of mistakes a label whose pictures are shown. The file then "
            "holds patients' images.",
        ),
    ] = 0,
    published: Annotated[
        str | None,
        typer.Option(
            "--published",
            metavar="MODALITY",
            help="Compare with the model card's figures: chest X-ray, dermatology, "
            "ophthalmology or histopathology.",
        ),
    ] = None,
    pos_label: Annotated[
        str | None,
        typer.Option(
            "--pos-label",
            help="The one of two classes to look for. Default: the finding, or "
            "the class that sorts second.",
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", help="Title of the page.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Where the test images come from, in a sentence."),
    ] = None,
    notes: Annotated[
        Path | None,
        typer.Option(
            "--notes",
            help="JSON file of statements that only people can make: intended_use, "
            "out_of_scope, population, reference, limits, oversight, contact.",
        ),
    ] = None,
    uncertain: options.UncertainOption = "ignore",
    blank: options.BlankOption = "ignore",
    resamples: Annotated[
        int,
        typer.Option(
            "--resamples", min=1, help="Number of resamples behind the intervals."
        ),
    ] = 2000,
    path_column: options.PathColumnOption = None,
    trust: options.TrustOption = None,
    overwrite: options.OverwriteOption = False,
    *,
    run: options.RunOptions,
) -> None:
    """Judge a saved classifier on a test set, in an HTML file.

    Figures with 95 % intervals by patient, curves, calibration, subgroups, thresholds,
    the worst mistakes, and a list of checks. The file needs no network. It
    holds neither paths nor patients' names, and pictures only if you ask.

    Example: sk-medsiglip report model.skops test.csv --group-column patient
    --subgroup-column sex --tune tune.csv --train train.csv
    """
    check_out(out, overwrite, (".html", ".htm"))
    for option, share in (("sensitivity", sensitivity), ("prevalence", prevalence)):
        if share is not None and not 0 < share < 1:
            raise CommandError(f"--{option} {share:g} must be above 0, below 1.")
    if prevalence is not None and tune is None:
        raise CommandError("--prevalence needs --tune: images to choose thresholds on.")
    # Late, so that --help is quick.
    from sk_medsiglip.cli._test_set import Judged, read_notes, read_test_set
    from sk_medsiglip.evaluation import published_results, write_report

    if published is not None:
        try:
            published_results(published)
        except ValueError as error:
            raise CommandError(f"--published: {error}") from None
    said_by_people = read_notes(notes)
    files = [classifier, *(compare or [])]
    judged = Judged.load(files, run.parameters(), trust or ())
    if published is not None and judged.is_demo:
        raise CommandError(
            "--published: the figures are of MedSigLIP, and a classifier here uses the "
            "demonstration checkpoint. Neither model nor method is the same."
        )
    meanings = {"uncertain": uncertain, "blank": blank}

    def read(file: Path | None, subgroups: Sequence[str] = ()) -> Any:
        if file is None:
            return None
        return read_test_set(
            file, judged, label_column, group_column, subgroups, path_column, meanings
        )

    test = read(source, subgroup_column or ())
    others: dict[str, Any] = {}
    for name, part in (("tune", read(tune)), ("train", read(train))):
        if part is not None:
            test.remarks.extend(part.remarks)
            others |= {
                f"X_{name}": part.paths,
                f"y_{name}": part.y,
                f"groups_{name}": part.groups,
            }
    for remark in test.remarks:
        say(remark, "yellow")
    write_report(
        out,
        judged.estimators,
        test.paths,
        test.y,
        groups=test.groups,
        subgroups=test.subgroups,
        pos_label=judged.positive(pos_label),
        **others,
        sensitivity=sensitivity,
        prevalence=prevalence,
        show_mistakes=show_mistakes,
        image_names=[f"row {row}" for row in test.rows],
        published=published,
        title=title,
        data=data,
        remarks=test.remarks,
        notes=said_by_people,
        command=typed_command(context),
        n_bootstrap=resamples,
        verbose=bar(),
    )
    say(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB): open it in a browser.")
    if show_mistakes:
        say("It holds pictures of patients: keep it where these may be kept.", "yellow")
    say(model_notice("demo" if judged.is_demo else ""), "yellow")
