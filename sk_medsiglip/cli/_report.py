"""``sk-medsiglip report``: saved classifiers and a test set to one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import (
    CommandError,
    bar,
    model_notice,
    say,
    say_remarks,
)
from sk_medsiglip.cli._files import check_out, typed_command
from sk_medsiglip.cli._predict import ClassifierArgument


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
    columns: options.LabelOptions,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="HTML file to write.")
    ] = Path("report.html"),
    subgroup_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of sex, age, scanner, site; repeat it. Numbers of many values "
            "are cut into quarters."
        ),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="Another saved classifier to compare; repeat it."),
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Training data, to look for leakage.")
    ] = None,
    tune: Annotated[
        Path | None,
        typer.Option(help="Tuning data: other images, to choose thresholds on."),
    ] = None,
    sensitivity: Annotated[
        float,
        typer.Option(
            help="Target of the thresholds; in the mean, new patients reach it."
        ),
    ] = 0.95,
    prevalence: Annotated[
        float | None,
        typer.Option(
            help="Share of patients with the label where the classifier will be used, "
            "such as 0.02: PPV and NPV at the thresholds are shown for it too."
        ),
    ] = None,
    show_mistakes: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of mistakes a label whose pictures are shown. The file then "
            "holds patients' images.",
        ),
    ] = 0,
    published: Annotated[
        str | None,
        typer.Option(
            metavar="MODALITY",
            help="Compare with the model card's figures: chest X-ray, dermatology, "
            "ophthalmology or histopathology.",
        ),
    ] = None,
    pos_label: Annotated[
        str | None,
        typer.Option(
            help="The one of two classes to look for. Default: the finding, or "
            "the class that sorts second."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Where the test images come from, in a sentence.")
    ] = None,
    notes: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of statements that only people can make: intended_use, "
            "out_of_scope, population, reference, limits, oversight, contact."
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=1, help="Number of resamples behind the intervals.")
    ] = 2000,
    trust: options.TrustOption = None,
    overwrite: options.OverwriteOption = False,
    *,
    run: options.RunOptions,
) -> None:
    """Evaluate a saved classifier on a test set, in an HTML file.

    It holds figures with 95 % intervals by patient, curves, calibration, subgroups,
    thresholds, the worst mistakes, and a list of checks. It needs no network, and holds
    neither paths nor patients' names; pictures only on request.

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
            "demonstration checkpoint. Neither the model nor the method is the same."
        )
    test = read_test_set(source, judged, columns, subgroup_column or ())
    others: dict[str, Any] = {}
    for name, file in (("tune", tune), ("train", train)):
        if file is not None:
            part = read_test_set(file, judged, columns)
            test.remarks.extend(part.remarks)
            others |= {
                f"X_{name}": part.paths,
                f"y_{name}": part.y,
                f"groups_{name}": part.groups,
            }
    say_remarks(test.remarks)
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
