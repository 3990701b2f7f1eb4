import json
from typing import Any

import pytest

from tests.conftest import SHIPPED_MODELS
from tests.drawing import encode, gradient
from tests.load.answers import (
    Answers,
    UnexpectedStatus,
    check_error,
    check_headers,
    check_status,
)
from tests.load.models import read_models
from tests.load.pictures import Picture, drawing
from tests.load.tasks import JSON, Classification, WrongAnswer

MODELS = read_models(SHIPPED_MODELS, None)
FASHION = MODELS["fashion-mnist"]
DENOISER = MODELS["denoiser"]
OTHER = drawing()


def prediction(label: str = "Trouser", probability: float = 0.91) -> dict[str, Any]:
    scores = [(label, probability), ("Bag", 0.05), ("Coat", 0.01)]
    assert isinstance(FASHION.task, Classification)
    top = [
        {"label": name, "index": FASHION.task.labels.index(name), "probability": value}
        for name, value in scores
    ]
    return {**top[0], "top": top}


def body(*predictions: dict[str, Any], **changes: Any) -> bytes:
    answer = {"model": "fashion-mnist", "version": "1", "predictions": list(predictions)}
    return json.dumps(answer | changes).encode()


def png(level: int = 0) -> bytes:
    return encode(gradient(*OTHER.size).point(lambda value: max(0, value - level)), "PNG")


def test_recorded_answer_is_right() -> None:
    Answers(MODELS).check_predictions(FASHION, [FASHION.sample], body(prediction()))
    flat = json.dumps({"model": "fashion-mnist", "version": "1", **prediction()}).encode()
    Answers(MODELS).check_form(FASHION, FASHION.sample, flat)


@pytest.mark.parametrize(
    "answer",
    [
        prediction("Dress"),
        prediction(probability=0.8),
    ],
    ids=["another label", "another probability"],
)
def test_answer_other_than_recorded_is_wrong(answer: dict[str, Any]) -> None:
    with pytest.raises(WrongAnswer, match=r"expected sample as 'Trouser' 0\.91, got"):
        Answers(MODELS).check_predictions(FASHION, [FASHION.sample], body(answer))


def test_image_without_a_record_must_be_answered_the_same_each_time() -> None:
    answers = Answers(MODELS)
    answers.check_predictions(FASHION, [OTHER], body(prediction("Dress", 0.6)))
    answers.check_predictions(FASHION, [OTHER], body(prediction("Dress", 0.6005)))
    with pytest.raises(WrongAnswer, match=r"expected drawing as 'Dress' 0\.60, got 'Dress' 0\.61"):
        answers.check_predictions(FASHION, [OTHER], body(prediction("Dress", 0.61)))


def test_labels_that_are_as_likely_may_change_places() -> None:
    answers = Answers(MODELS)
    one = prediction("Dress", 0.4)
    one["top"][1] |= {"probability": 0.3999}
    other = {**one["top"][1], "probability": 0.4}
    other["top"] = [dict(other), {**one["top"][0], "probability": 0.3999}, one["top"][2]]
    answers.check_predictions(FASHION, [OTHER], body(one))
    answers.check_predictions(FASHION, [OTHER], body(other))


def test_several_predictions_are_checked_in_their_order() -> None:
    answers = Answers(MODELS)
    answers.check_predictions(
        FASHION, [FASHION.sample, OTHER], body(prediction(), prediction("Dress", 0.5))
    )
    with pytest.raises(WrongAnswer):
        answers.check_predictions(
            FASHION, [FASHION.sample, OTHER], body(prediction("Dress", 0.5), prediction())
        )


@pytest.mark.parametrize(
    "answer",
    [
        b"not JSON",
        b"[]",
        body(prediction(), model="denoiser"),
        body(prediction(), version=None),
        body(),
        body(prediction(), prediction()),
        body({"error": "a broken image"}),
        body({**prediction(), "label": "Bag"}),
        body({**prediction(), "top": prediction()["top"][:2]}),
        body({**prediction(), "top": prediction()["top"][::-1]}),
        body(prediction(probability=1.5)),
    ],
)
def test_answer_that_is_not_well_formed_is_wrong(answer: bytes) -> None:
    with pytest.raises(WrongAnswer):
        Answers(MODELS).check_predictions(FASHION, [OTHER], answer)


def test_denoised_sample_must_be_the_recorded_one() -> None:
    answers = Answers(MODELS)
    answers.check_form(DENOISER, DENOISER.sample, DENOISER.recorded.data)
    answers.check_predictions(DENOISER, [DENOISER.sample], DENOISER.recorded.data)
    with pytest.raises(WrongAnswer, match="expected sample within 6 levels"):
        answers.check_form(DENOISER, DENOISER.sample, DENOISER.sample.data)


def test_denoised_image_must_be_the_same_each_time() -> None:
    answers = Answers(MODELS)
    for level in (0, 0, 2):
        answers.check_form(DENOISER, OTHER, png(level))
    with pytest.raises(WrongAnswer, match="expected drawing within 2 levels"):
        answers.check_form(DENOISER, OTHER, png(9))


@pytest.mark.parametrize(
    ("answer", "message"),
    [(b"no image", "expected a PNG"), (encode(gradient(9, 9), "PNG"), r"expected \(64, 48\)")],
)
def test_denoised_image_must_be_a_png_of_the_same_size(answer: bytes, message: str) -> None:
    with pytest.raises(WrongAnswer, match=message):
        Answers(MODELS).check_form(DENOISER, OTHER, answer)


def test_pictures_with_the_same_name_are_told_apart() -> None:
    namesake = Picture("sample", OTHER.data, OTHER.media_type, OTHER.size)
    answers = Answers(MODELS)
    answers.check_predictions(FASHION, [namesake], body(prediction("Dress", 0.5)))


def test_status_other_than_deserved_is_told_without_the_request_id() -> None:
    check_status(415, 415, b"", "42")
    with pytest.raises(UnexpectedStatus, match=r"expected 200, got 500: the log has it under …"):
        check_status(500, 200, b"the log has it under 4711", "4711")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/html", "X-Request-ID": "42"},
        {"X-Request-ID": "42"},
        {"Content-Type": JSON, "X-Request-ID": "43"},
        {"Content-Type": JSON},
    ],
)
def test_headers_must_tell_the_type_and_the_request_id(headers: dict[str, str]) -> None:
    check_headers({"Content-Type": f"{JSON}; charset=utf-8", "X-Request-ID": "42"}, JSON, "42")
    with pytest.raises(WrongAnswer):
        check_headers(headers, JSON, "42")


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"error": null}'])
def test_error_must_have_a_message(answer: bytes) -> None:
    check_error(FASHION, b'{"error": "expected an image"}')
    with pytest.raises(WrongAnswer):
        check_error(FASHION, answer)
