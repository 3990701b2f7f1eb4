"""The model card: what a recipe says of its model, and the numbers of its manifest."""

from collections.abc import Callable
from dataclasses import dataclass

from service.artifacts.manifest import Manifest


def classification_results(manifest: Manifest) -> str:
    """The overall figures and a table by class, on the test split."""
    metrics = manifest.metrics
    count = round(metrics["test_count"])
    lines = [
        f"On the test split ({count:,} images, none of them trained on): accuracy "
        f"**{metrics['accuracy']:.4f}**, macro F1 {metrics['f1_macro']:.4f}, macro one-versus-rest "
        f"ROC AUC {metrics['roc_auc_ovr_macro']:.4f}.",
        "",
        "| class | images | precision | recall | F1 | ROC AUC |",
        "|---|---|---|---|---|---|",
    ]
    for label in manifest.labels:
        values = (metrics[f"{name}/{label}"] for name in ("precision", "recall", "f1", "roc_auc"))
        shown = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {label} | {round(metrics[f'count/{label}']):,} | {shown} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Card:
    """The words of a model card; every number in it comes from the manifest."""

    title: str
    purpose: str
    not_for: str
    data: str
    limits: str
    results: Callable[[Manifest], str] = classification_results
    figures: tuple[tuple[str, str], ...] = (
        ("Loss and accuracy by epoch", "curves.png"),
        ("Confusion matrix", "confusion.png"),
    )


def render_card(manifest: Manifest, card: Card) -> str:
    """The card as Markdown, for `README.md` in the artifact."""
    height, width, _ = manifest.input.shape
    size = "any size" if height is None else f"{height}x{width}"
    origin = manifest.training
    arguments = " ".join(
        f"--{name}" if value is True else f"--{name} {value}"
        for name, value in origin.arguments.items()
        if value is not None and value is not False
    )
    base = f"It stands on the weights of {origin.base}. " if origin.base else ""
    figures = "\n\n".join(f"{title}:\n\n![{title}]({file})" for title, file in card.figures)
    return f"""# {card.title}

Model `{manifest.name}`, version {manifest.version}: {manifest.task}, {manifest.parameters:,} \
parameters, input {size} ({manifest.input.color}).

## What it is for
{card.purpose}

## What it is not for
{card.not_for}

## Data and licence
{card.data}

## Results
{card.results(manifest)}

{figures}

## Speed
{speed_table(manifest)}

## Limits and known biases
{card.limits}

## Train it again
```
python -m training {origin.recipe} {arguments}
```
{base}Recipe `{origin.recipe}` at commit `{origin.commit}`, seed {origin.seed}, \
{origin.seconds:,.0f} seconds, with \
{", ".join(f"{library} {version}" for library, version in origin.libraries.items())}.
"""


def speed_table(manifest: Manifest) -> str:
    """Of every engine: milliseconds by batch size, and what it costs against the float network."""
    sizes = list(next(iter(manifest.engines.values())).milliseconds)
    quality = ["accuracy", "same label"] if manifest.labels else ["PSNR, dB"]
    columns = ["engine", *(f"batch {size}" for size in sizes), *quality, "largest difference"]
    lines = [
        "Median milliseconds of one `predict` on one thread of the CPU that exported it (Keras: on "
        "all), and what each engine answers to the validation images:",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    for name, engine in manifest.engines.items():
        chosen = [device for device, choice in manifest.engine.items() if choice == name]
        first = f"{name} (served on a {' and a '.join(chosen)})" if chosen else name
        times = [f"{engine.milliseconds[size]:.3g}" for size in sizes]
        if engine.psnr_db is None:
            rest = [f"{engine.accuracy:.4f}", f"{engine.label_agreement:.4f}"]
        else:
            rest = [f"{engine.psnr_db:.2f}"]
        cells = [first, *times, *rest, f"{engine.max_abs_difference:.1g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
