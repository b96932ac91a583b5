"""``sk-medsiglip report``: evaluate saved classifiers in an HTML file."""

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
from sk_medsiglip.cli._files import check_out, say_page, typed_command
from sk_medsiglip.cli._predict import ClassifierArgument


@options.with_options
def report(
    context: typer.Context,
    classifier: ClassifierArgument,
    source: Annotated[
        Path,
        typer.Argument(
            help="CSV file of test images with their labels, or a folder with one "
            "sub-folder per class."
        ),
    ],
    columns: options.LabelOptions,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="HTML file to write.")
    ] = Path("report.html"),
    subgroup_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of sex, age, scanner or site. Repeatable. Numeric columns "
            "with many values are divided into quarters."
        ),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="Another saved classifier to compare. Repeatable."),
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Training data, to look for leakage.")
    ] = None,
    tune: Annotated[
        Path | None,
        typer.Option(help="Tuning data: other images, on which to choose thresholds."),
    ] = None,
    sensitivity: Annotated[
        float,
        typer.Option(
            help="Target of the thresholds, reached on new patients in the mean."
        ),
    ] = 0.95,
    prevalence: Annotated[
        float | None,
        typer.Option(
            help="Share of patients with the label where the classifier will be used, "
            "such as 0.02. PPV and NPV at the thresholds are shown for it too."
        ),
    ] = None,
    show_mistakes: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of mistakes per label to show as images. The file then holds "
            "images of patients.",
        ),
    ] = 0,
    published: Annotated[
        str | None,
        typer.Option(
            metavar="MODALITY",
            help="Compare with results of the model card: chest X-ray, dermatology, "
            "ophthalmology or histopathology.",
        ),
    ] = None,
    pos_label: Annotated[
        str | None,
        typer.Option(
            help="Positive one of two classes. Default: the finding, or the class that "
            "sorts second."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Origin of the test images, in a sentence.")
    ] = None,
    notes: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of statements that only people can make: intended_use, "
            "out_of_scope, population, reference, limits, oversight, contact."
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=1, help="Number of resamples for the intervals.")
    ] = 2000,
    trust: options.TrustOption = None,
    overwrite: options.OverwriteOption = False,
    *,
    run: options.RunOptions,
) -> None:
    """Evaluate a saved classifier on a test set, in an HTML file.

    The file holds metrics with 95 % intervals by patient, curves, calibration,
    subgroups, thresholds, the worst mistakes, and checks for leakage. It needs no
    network, does not contain paths or names of patients, and shows images only with
    --show-mistakes.

    Example: sk-medsiglip report model.skops test.csv --group-column patient
    --subgroup-column sex --tune tune.csv --train train.csv
    """
    check_out(out, overwrite, (".html", ".htm"))
    for option, share in (("sensitivity", sensitivity), ("prevalence", prevalence)):
        if share is not None and not 0 < share < 1:
            raise CommandError(f"--{option} {share:g} must be above 0 and below 1.")
    if prevalence is not None and tune is None:
        raise CommandError(
            "--prevalence needs --tune, images on which to choose thresholds."
        )
    # Imported late, so that --help is fast.
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
            "--published: the published results are those of MedSigLIP, and a "
            "classifier here uses the demonstration checkpoint, a different model. "
            "Leave it out."
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
    say_page(out, shows_images=show_mistakes > 0)
    say(model_notice("demo" if judged.is_demo else ""), "yellow")
