"""The model card: the text of a recipe, and the numbers of the manifest."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from service.artifacts.manifest import Manifest
from training.tasks import TASKS

LICENSE = "apache-2.0"  # of the weights


@dataclass(frozen=True)
class Card:
    """The words of a model card; every number in it comes from the manifest."""

    title: str
    purpose: str
    not_for: str
    data: str
    limits: str
    results: Callable[[Manifest], str] | None = None
    """The section Results, from the manifest; None takes the task's."""
    figures: tuple[tuple[str, str], ...] | None = None
    """Titles and files of the pictures; None takes the task's."""


def render_card(manifest: Manifest, card: Card) -> str:
    """The card as Markdown, for `README.md` in the artifact; its front matter is Hugging Face's."""
    task = TASKS[manifest.task.type]
    height, width, _ = manifest.input.shape
    size = "any size" if height is None else f"{height}x{width}"
    origin = manifest.training
    arguments = " ".join(
        f"--{name}" if value is True else f"--{name} {value}"
        for name, value in origin.arguments.items()
        if value is not None and value is not False
    )
    base = f"It starts from the weights of {origin.base}. " if origin.base else ""
    results = (card.results or task.results)(manifest)
    pictures = task.figures if card.figures is None else card.figures
    figures = "\n\n".join(f"{title}:\n\n![{title}]({file})" for title, file in pictures)
    return f"""---
{front_matter(manifest)}---
# {card.title}{_smoke_warning(manifest)}

Model `{manifest.name}`, version {manifest.version}: {manifest.task.type}, \
{manifest.parameters:,} parameters, input {size} ({manifest.input.color}).

## What it is for
{card.purpose}

## What it is not for
{card.not_for}

## Try it
{_example(manifest)}

## Data and licence
{card.data}

## Results
{results}

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


def front_matter(manifest: Manifest) -> str:
    """The YAML that Hugging Face reads (huggingface.co/docs/hub/model-cards)."""
    task = TASKS[manifest.task.type]
    metrics = [
        {"type": name, "value": manifest.metrics[key]}
        for name, key in task.headline.items()
        if key in manifest.metrics
    ]
    dataset = {"name": manifest.training.dataset, "type": "image"}
    fields: dict[str, Any] = {
        "license": LICENSE,
        "pipeline_tag": task.tag,
        "library_name": "keras",
        "tags": [task.tag, "keras", "tflite"],
        "datasets": [manifest.training.dataset],
        "metrics": list(task.headline),
        "model-index": [
            {
                "name": manifest.name,
                "results": [{"task": {"type": task.tag}, "dataset": dataset, "metrics": metrics}],
            }
        ],
    }
    text: str = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return text


def _smoke_warning(manifest: Manifest) -> str:
    is_smoke = manifest.training.arguments.get("smoke")
    return " (smoke run on a few hundred images: not for use)" if is_smoke else ""


def _example(manifest: Manifest) -> str:
    sample = manifest.sample
    expected = json.dumps(sample.expected.model_dump(exclude={"tolerance"}), ensure_ascii=False)
    url = f"http://localhost:3000/v1/models/{manifest.name}:predict"
    return f"""![The sample]({sample.file})

The project drew this image. From this folder, with the service running:
```
curl -s -H "Content-Type: image/png" --data-binary @{sample.file} {url} -o answer
```
The recorded answer: `{expected}`."""


def speed_table(manifest: Manifest) -> str:
    """For every engine: milliseconds by batch size, and quality beside the float network's."""
    sizes = list(next(iter(manifest.engines.values())).milliseconds)
    measures = TASKS[manifest.task.type].columns
    titles = [title for title, _ in measures.values()]
    columns = ["engine", *(f"batch {size}" for size in sizes), *titles, "largest difference"]
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
        quality = [f"{engine.quality[key]:{form}}" for key, (_, form) in measures.items()]
        cells = [first, *times, *quality, f"{engine.max_abs_difference:.1g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
