"""The model card: words of the recipe, numbers of the manifest."""

import re

import pytest
import yaml

from tests.training.tiny import CARD, LABELS, METRICS, manifest
from training.card import render_card, speed_table
from training.tasks import Classification

SECTIONS = (
    "What it is for",
    "What it is not for",
    "Try it",
    "Data and licence",
    "Results",
    "Speed",
    "Limits and known biases",
    "Train it again",
)


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def rows(markdown: str) -> list[list[str]]:
    """The body of the one table in it."""
    return [cells(line) for line in markdown.splitlines() if line.startswith("|")][2:]


def section(card: str, title: str) -> str:
    return card.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_card_has_every_section_in_order() -> None:
    card = render_card(manifest(), CARD)
    assert tuple(re.findall(r"^## (.*)$", card, re.MULTILINE)) == SECTIONS


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("What it is for", CARD.purpose),
        ("What it is not for", CARD.not_for),
        ("Data and licence", CARD.data),
        ("Limits and known biases", CARD.limits),
    ],
)
def test_card_says_what_the_recipe_says(title: str, words: str) -> None:
    assert words in section(render_card(manifest(), CARD), title)


def test_card_begins_with_what_the_model_is() -> None:
    card = render_card(manifest(), CARD).partition("\n---\n")[2]
    assert card.startswith("# How light\n")
    assert "`tiny`, version 7: classification, 12,345 parameters, input 4x4 (grey)." in card


def test_card_says_any_for_a_size_that_is_not_fixed() -> None:
    spec = manifest().input.model_copy(update={"shape": (None, None, 1)})
    card = render_card(manifest().model_copy(update={"input": spec}), CARD)
    assert "input any size (grey)" in card


@pytest.mark.parametrize("label", LABELS)
def test_results_row_holds_the_metrics_of_its_class(label: str) -> None:
    row = next(row for row in rows(Classification.results(manifest())) if row[0] == label)
    names = ("precision", "recall", "f1", "roc_auc")
    shown = [f"{METRICS[f'{name}/{label}']:.3f}" for name in names]
    assert row == [label, f"{METRICS[f'count/{label}']:.0f}", *shown]


def test_results_have_a_row_for_every_label() -> None:
    assert [row[0] for row in rows(Classification.results(manifest()))] == list(LABELS)


def test_results_begin_with_the_overall_metrics() -> None:
    overall = Classification.results(manifest()).partition("\n")[0]
    assert re.findall(r"[\d,]*\d\.?\d*", overall.replace("F1", "")) == [
        "1,234",
        f"{METRICS['accuracy']:.4f}",
        *("95", "0.4721", "0.5279"),
        *(f"{METRICS[name]:.4f}" for name in ("f1_macro", "roc_auc_ovr_macro")),
    ]


def test_results_lack_no_metric_silently() -> None:
    metrics = {name: value for name, value in METRICS.items() if name != "recall/middling"}
    with pytest.raises(KeyError, match="recall/middling"):
        Classification.results(manifest().model_copy(update={"metrics": metrics}))


def test_speed_table_holds_what_was_measured_of_every_engine() -> None:
    assert rows(speed_table(manifest())) == [
        ["litert (served on a cpu)", "0.0123", "0.456", "0.7500", "1.0000", "3e-07"],
        ["litert-int8", "0.001", "0.01", "0.5000", "0.5000", "0.2"],
        ["keras (served on a gpu)", "1.11", "2.22", "0.7500", "1.0000", "0"],
    ]


def test_card_shows_every_figure() -> None:
    assert "![A figure](figure.png)" in section(render_card(manifest(), CARD), "Results")


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ({"smoke": False, "epochs": None, "seed": 3}, "python -m training tiny --seed 3"),
        ({"smoke": True, "network": "mlp"}, "python -m training tiny --smoke --network mlp"),
        ({"seed": 0}, "python -m training tiny --seed 0"),
    ],
)
def test_card_tells_the_command_that_trains_it_again(
    arguments: dict[str, str | int | bool | None], command: str
) -> None:
    again = section(render_card(manifest(**arguments), CARD), "Train it again")
    assert again.split("```")[1].strip() == command


def test_card_tells_where_the_weights_come_from() -> None:
    again = section(render_card(manifest(), CARD), "Train it again")
    assert "commit `0123abc`, seed 3, 4,321 seconds" in again
    assert "keras 3.99" in again


def test_front_matter_is_what_hugging_face_reads() -> None:
    _, front, _ = render_card(manifest(), CARD).split("---\n", 2)
    fields = yaml.safe_load(front)
    assert (fields["license"], fields["pipeline_tag"]) == ("apache-2.0", "image-classification")
    assert fields["datasets"] == ["drawn"]
    assert fields["metrics"] == ["accuracy", "f1"]
    (model,) = fields["model-index"]
    assert model["name"] == "tiny"
    (result,) = model["results"]
    assert result["metrics"][0] == {"type": "accuracy", "value": METRICS["accuracy"]}


def test_sample_is_shown_with_a_command_that_posts_it() -> None:
    example = section(render_card(manifest(), CARD), "Try it")
    assert "![The sample](sample.png)" in example
    assert "@sample.png http://localhost:3000/v1/models/tiny:predict" in example
    assert '{"label": "light", "index": 2, "probability": 0.9}' in example


def test_smoke_run_says_so_in_its_title() -> None:
    title = render_card(manifest(smoke=True), CARD).partition("\n---\n")[2].partition("\n")[0]
    assert title == "# How light (smoke run on a few hundred images: not for use)"


def test_long_table_of_classes_is_folded() -> None:
    assert "<details>" not in Classification.results(manifest())
    many = dict(METRICS)
    for number in range(21):
        for name in ("precision", "recall", "f1", "roc_auc", "count"):
            many[f"{name}/class {number}"] = 1.0
    folded = Classification.results(manifest().model_copy(update={"metrics": many}))
    assert "<details><summary>All 24 classes</summary>" in folded
    assert folded.endswith("</details>")
