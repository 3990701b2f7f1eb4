import json
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from service.errors import BadInput, SettingsError
from service.inference.registry import Registry
from service.pixels.formats import FORMATS
from service.server.app import App
from service.settings import Settings
from tests.asgi import in_process
from tests.logs import kept_log
from tests.server import CHECKOUT

SAMPLE = (CHECKOUT / "models/fashion-mnist/1/sample.png").read_bytes()
DIGIT = (CHECKOUT / "models/denoiser/1/sample.png").read_bytes()
PREDICT = "/v1/models/fashion-mnist:predict"
DENOISE = "/v1/models/denoiser:predict"
PNG = {"Content-Type": "image/png"}


def encoded(image: Image.Image, image_format: str = "PNG") -> bytes:
    buffer = BytesIO()
    image.save(buffer, image_format)
    return buffer.getvalue()


def upload(data: bytes, name: str = "photo.png") -> dict[str, tuple[str, bytes]]:
    return {"image": (name, data)}


def expected_answer(model: str) -> dict[str, object]:
    manifest = json.loads((CHECKOUT / f"models/{model}/1/manifest.json").read_bytes())
    answer: dict[str, object] = manifest["sample"]["expected"]
    return answer


def test_classify_names_the_sample(client: httpx.Client) -> None:
    answer = client.post("/classify", files=upload(SAMPLE))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["model", "version", "label", "index", "probability", "top"]
    assert (body["model"], body["version"]) == ("fashion-mnist", "1")
    assert body["label"] == expected_answer("fashion-mnist")["label"]
    assert body["top"][0] == {key: body[key] for key in ("label", "index", "probability")}
    assert len(body["top"]) == 3


@pytest.mark.parametrize("model", ["fashion-mnist", "fashion-mnist-mlp", "hand-signs"])
def test_classify_takes_a_model(client: httpx.Client, model: str) -> None:
    sample = (CHECKOUT / f"models/{model}/1/sample.png").read_bytes()
    answer = client.post("/classify", files=upload(sample), data={"model": model})
    assert answer.json()["label"] == expected_answer(model)["label"]


@pytest.mark.parametrize(
    ("asked", "given"), [("1", 1), ("05", 5), ("10", 10), ("99", 10), ("9" * 50, 10)]
)
def test_top_k_is_at_most_all_classes(client: httpx.Client, asked: str, given: int) -> None:
    form = client.post("/classify", files=upload(SAMPLE), data={"top_k": asked}).json()["top"]
    raw = client.post(PREDICT, content=SAMPLE, headers=PNG, params={"top_k": asked}).json()
    assert len(form) == given
    assert raw["predictions"][0]["top"] == form
    probabilities = [score["probability"] for score in form]
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize("top_k", ["0", "00", "-1", "1.5", "many", ""])
def test_top_k_out_of_range_is_refused(client: httpx.Client, top_k: str) -> None:
    form = client.post("/classify", files=upload(SAMPLE), data={"top_k": top_k})
    raw = client.post(PREDICT, content=SAMPLE, headers=PNG, params={"top_k": top_k})
    assert form.status_code == raw.status_code == 400
    assert "top_k" in form.json()["error"]
    assert form.json() == raw.json()


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("topk=1", "unknown parameter 'topk'; expected one of top_k"),
        ("top_k=1&topk=1", "unknown parameter 'topk'; expected one of top_k"),
        ("top_k=1&top_k=2", "expected query parameter 'top_k' once, got it twice"),
        ("model=fashion-mnist", "unknown parameter 'model'; expected one of top_k"),
    ],
)
def test_unknown_and_repeated_query_parameters_are_refused(
    client: httpx.Client, query: str, error: str
) -> None:
    raw = client.post(f"{PREDICT}?{query}", content=SAMPLE, headers=PNG)
    assert (raw.status_code, raw.json()) == (400, {"error": error})


@pytest.mark.parametrize("path", ["/classify", "/denoise"])
def test_form_route_takes_no_query(client: httpx.Client, path: str) -> None:
    answer = client.post(f"{path}?top_k=1", files=upload(SAMPLE))
    assert answer.status_code == 400
    assert answer.json()["error"] == f"{path} takes form fields, not query parameters"


def test_endless_parameter_makes_no_endless_message(client: httpx.Client) -> None:
    answer = client.post(f"{PREDICT}?{'x' * 10_000}", content=SAMPLE, headers=PNG)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) < 200


@pytest.mark.parametrize(
    "content_type", ["image/png", "image/anything", "application/octet-stream", None]
)
def test_predict_takes_the_image_itself(client: httpx.Client, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = client.post(PREDICT, content=SAMPLE, headers=headers)
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["model", "version", "predictions"]
    assert body["predictions"][0]["label"] == expected_answer("fashion-mnist")["label"]


def test_predict_takes_a_version(client: httpx.Client) -> None:
    path = "/v1/models/fashion-mnist/versions/1:predict"
    assert client.post(path, content=SAMPLE, headers=PNG).json()["version"] == "1"


@pytest.mark.parametrize("version", ["2", "01", "latest"])
def test_unknown_version_is_not_found(client: httpx.Client, version: str) -> None:
    path = f"/v1/models/fashion-mnist/versions/{version}:predict"
    answer = client.post(path, content=SAMPLE, headers=PNG)
    assert answer.status_code == 404
    assert repr(version) in answer.json()["error"]


def test_unknown_model_is_not_found(client: httpx.Client) -> None:
    raw = client.post("/v1/models/nope:predict", content=SAMPLE, headers=PNG)
    form = client.post("/classify", files=upload(SAMPLE), data={"model": "nope"})
    assert raw.status_code == form.status_code == 404
    assert "fashion-mnist" in raw.json()["error"]
    assert raw.json() == form.json()


def test_predict_answers_many_images_in_order(client: httpx.Client) -> None:
    blank = encoded(Image.new("L", (28, 28)))
    singles = [
        client.post(PREDICT, content=data, headers=PNG).json()["predictions"][0]
        for data in (SAMPLE, blank)
    ]
    files = [("image", ("a.png", data)) for data in (SAMPLE, blank, SAMPLE)]
    body = client.post(PREDICT, files=files).json()
    assert [prediction["label"] for prediction in body["predictions"]] == [
        singles[index]["label"] for index in (0, 1, 0)
    ]


def test_invalid_among_many(client: httpx.Client) -> None:
    files = [("image", ("a", data)) for data in (SAMPLE, b"no image", SAMPLE, SAMPLE[:90])]
    answer = client.post(PREDICT, files=files)
    assert answer.status_code == 200
    first, second, third, fourth = answer.json()["predictions"]
    assert first == third
    assert list(second) == list(fourth) == ["error"]


def test_error_among_many_tells_what_a_caller_may_know(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def infer_each(*_: object) -> list[Exception]:
        return [BadInput("expected an image"), ValueError("no such luck")]

    monkeypatch.setattr(Registry, "infer_each", infer_each)
    files = [("image", ("a", SAMPLE)), ("image", ("b", SAMPLE))]
    with kept_log() as log:
        answer = client.post(PREDICT, files=files, headers={"X-Request-ID": "unlucky"})
    assert answer.json()["predictions"] == [
        {"error": "expected an image"},
        {"error": "unexpected error; the log has it under request id unlucky"},
    ]
    assert log.fields("unexpected error") == [{"request_id": "unlucky"}]


def test_single_bad_part_is_a_plain_error(client: httpx.Client) -> None:
    answer = client.post(PREDICT, files=upload(b"no image"))
    assert answer.status_code == 415
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("count", [9, 1001])
def test_too_many_images_are_refused(client: httpx.Client, count: int) -> None:
    files = [("image", ("a.png", SAMPLE))] * count
    answer = client.post(PREDICT, files=files)
    assert answer.status_code == 413
    assert "at most 8" in answer.json()["error"]


@pytest.mark.parametrize("top_k", ["0", "3"])
def test_denoiser_knows_no_top_k(client: httpx.Client, top_k: str) -> None:
    raw = client.post(f"{DENOISE}?top_k={top_k}", content=DIGIT, headers=PNG)
    form = client.post("/denoise", files=upload(DIGIT), data={"top_k": top_k})
    assert raw.status_code == form.status_code == 400
    assert raw.json()["error"] == "unknown parameter 'top_k'; denoising takes none"
    assert form.json()["error"] == "unknown field 'top_k'; expected one of image, model"


@pytest.mark.parametrize("side", [(8, 8), (28, 28), (61, 37), (300, 200)])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_denoise_keeps_size_and_colour(
    client: httpx.Client, side: tuple[int, int], mode: str
) -> None:
    image = Image.new("L", side, 40)
    ImageDraw.Draw(image).ellipse([2, 2, side[0] - 3, side[1] - 3], fill=200)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 256)
    elif mode != "L":
        image = image.convert(mode)
    answer = client.post("/denoise", files=upload(encoded(image)))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    denoised = Image.open(BytesIO(answer.content))
    assert denoised.size == side
    wanted = {"1": "L", "P": "RGB", "I;16": "L"}.get(mode, mode)
    assert denoised.mode == wanted


def test_denoise_keeps_alpha(client: httpx.Client) -> None:
    image = Image.new("RGBA", (32, 24), (200, 100, 50, 255))
    alpha = Image.linear_gradient("L").resize((32, 24))
    image.putalpha(alpha)
    answer = client.post("/denoise", files=upload(encoded(image)))
    came = Image.open(BytesIO(answer.content)).getchannel("A")
    assert came.tobytes() == alpha.tobytes()


def test_denoise_takes_noise_out(client: httpx.Client) -> None:
    clean = np.zeros((64, 96), dtype=np.float64)
    clean[16:48, 20:40] = clean[8:56, 60:70] = 255
    noisy = np.clip(clean + np.random.default_rng(1).normal(0, 76, clean.shape), 0, 255)
    data = encoded(Image.fromarray(noisy.astype(np.uint8)))
    came = np.asarray(Image.open(BytesIO(client.post("/denoise", files=upload(data)).content)))
    assert np.square(came - clean).mean() < np.square(noisy - clean).mean() / 3


def test_large_image_is_denoised_without_seams(client: httpx.Client) -> None:
    random = np.random.default_rng(2)
    tile = random.integers(0, 256, (64, 64), dtype=np.uint8)
    pixels = np.tile(tile, (10, 12))
    answer = client.post("/denoise", files=upload(encoded(Image.fromarray(pixels))))
    came = np.asarray(Image.open(BytesIO(answer.content))).astype(int)
    inner = came[64:-64, 64:-64].reshape(8, 64, 10, 64)
    assert np.abs(inner - inner[:1, :, :1]).max() <= 1


def test_predict_of_a_denoiser_is_a_png(client: httpx.Client) -> None:
    raw = client.post(DENOISE, content=DIGIT, headers=PNG)
    form = client.post("/denoise", files=upload(DIGIT))
    part = client.post(DENOISE, files=upload(DIGIT))
    assert raw.headers["content-type"] == "image/png"
    assert raw.content == form.content == part.content


def test_denoiser_takes_one_part(client: httpx.Client) -> None:
    files = [("image", ("a.png", DIGIT))] * 2
    answer = client.post(DENOISE, files=files)
    assert answer.status_code == 413
    assert "at most 1" in answer.json()["error"]


@pytest.mark.parametrize(
    ("size", "status"), [((7, 40), 400), ((8, 8), 200), ((1000, 1000), 200), ((1001, 1000), 413)]
)
def test_denoise_has_its_own_size_limits(
    client: httpx.Client, size: tuple[int, int], status: int
) -> None:
    answer = client.post("/denoise", files=upload(encoded(Image.new("L", size))))
    assert answer.status_code == status


def test_model_for_another_task_is_refused(client: httpx.Client) -> None:
    classify = client.post("/classify", files=upload(SAMPLE), data={"model": "denoiser"})
    denoise = client.post("/denoise", files=upload(SAMPLE), data={"model": "fashion-mnist"})
    assert classify.status_code == denoise.status_code == 400
    assert "denoiser" in classify.json()["error"]
    assert "fashion-mnist" in denoise.json()["error"]


BAD_IMAGES = {
    "text": (b"hello", 415),
    "empty": (b"", 400),
    "pdf": (b"%PDF-1.7 ...", 415),
    "truncated": (SAMPLE[:-40], 400),
    "header alone": (SAMPLE[:20], 400),
    "too many bytes": (SAMPLE + bytes(1_000_000), 413),
    "too many pixels": (encoded(Image.new("1", (2501, 2000))), 413),
    "url": (b"http://127.0.0.1/x.png", 415),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_is_refused_on_every_route(client: httpx.Client, name: str) -> None:
    data, status = BAD_IMAGES[name]
    answers = [
        client.post(PREDICT, content=data, headers=PNG),
        client.post(PREDICT, files=upload(data)),
        client.post("/classify", files=upload(data)),
        client.post("/denoise", files=upload(data)),
        client.post(DENOISE, content=data, headers=PNG),
    ]
    assert [answer.status_code for answer in answers] == [status] * len(answers)
    for answer in answers:
        assert list(answer.json()) == ["error"]
        assert answer.json()["error"].startswith("expected ")


def test_body_without_a_declared_length_is_limited(client: httpx.Client) -> None:
    chunks = (bytes(100_000) for _ in range(11))
    answer = client.post(PREDICT, content=chunks, headers=PNG)
    assert answer.status_code == 413
    assert "1000000 bytes" in answer.json()["error"]


def test_colour_photo_in_every_format_gets_the_same_label(client: httpx.Client) -> None:
    with Image.open(BytesIO(SAMPLE)) as image:
        photo = Image.new("RGB", (400, 500), "white")
        dark = Image.eval(image, lambda value: 255 - value).resize((280, 280))
        photo.paste(dark, (90, 140))
    for image_format in FORMATS:
        answer = client.post("/classify", files=upload(encoded(photo, image_format)))
        assert answer.json()["label"] == "Trouser", image_format


def test_corrupt_uploads_are_never_a_server_error(client: httpx.Client) -> None:
    random = np.random.default_rng(3)
    whole = np.frombuffer(SAMPLE, dtype=np.uint8)
    for _ in range(60):
        broken = whole.copy()
        spots = random.integers(0, len(broken), 4)
        broken[spots] = random.integers(0, 256, 4)
        assert client.post("/classify", files=upload(broken.tobytes())).status_code < 500


MLP, DENSE = "fashion-mnist-mlp", "fashion-mnist-dense"


@pytest.mark.parametrize(
    ("models", "default_models", "default"),
    [
        ((MLP,), {}, MLP),
        ((MLP, "denoiser"), {}, MLP),
        ((MLP, "fashion-mnist"), {}, "fashion-mnist"),
        ((MLP, "fashion-mnist"), {"classify": MLP}, MLP),
        ((MLP, DENSE), {"classify": DENSE}, DENSE),
    ],
)
def test_default_model_answers_where_none_is_named(
    models: tuple[str, ...], default_models: dict[str, str], default: str
) -> None:
    with in_process(models=models, default_models=default_models) as client:
        answer = client.post("/classify", files=upload(SAMPLE))
    assert answer.json()["model"] == default


@pytest.mark.parametrize(
    ("models", "error"),
    [
        ((MLP, DENSE), f"expected the name of a model, one of {DENSE}, {MLP}; got none"),
        (("denoiser",), "no model for classification is served here"),
    ],
)
def test_without_a_default_a_model_has_to_be_named(models: tuple[str, ...], error: str) -> None:
    with in_process(models=models) as client:
        answer = client.post("/classify", files=upload(SAMPLE))
        assert (answer.status_code, answer.json()) == (400, {"error": error})
        if MLP in models:
            named = client.post("/classify", files=upload(SAMPLE), data={"model": MLP})
            assert named.json()["model"] == MLP


def test_no_error_names_a_default_that_was_not_asked_for() -> None:
    with in_process(models=(MLP, DENSE)) as client:
        for sent in (upload(SAMPLE), upload(b"no image")):
            for path in ("/classify", "/denoise"):
                answer = client.post(path, files=sent)
                assert answer.status_code == 400
                assert "'fashion-mnist'" not in answer.text
                assert "denoiser" not in answer.text


@pytest.mark.parametrize(
    ("default_models", "error"),
    [
        ({"classify": "nope"}, f"unknown model 'nope'; expected one of {MLP}"),
        ({"classify": "denoiser"}, f"unknown model 'denoiser'; expected one of {MLP}"),
        ({"paint": MLP}, "expected one of classify before =, got 'paint'"),
    ],
)
def test_default_that_is_not_served_stops_the_start(
    default_models: dict[str, str], error: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        App(Settings(workers=1, models=(MLP,), default_models=default_models))
    assert str(caught.value) == f"VITRINE_DEFAULT_MODELS: {error}"


def test_default_for_another_task_stops_the_start() -> None:
    settings = Settings(
        workers=1, models=(MLP, "denoiser"), default_models={"classify": "denoiser"}
    )
    with pytest.raises(SettingsError, match="expected a model for classification"):
        App(settings)
