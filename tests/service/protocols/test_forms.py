import asyncio

import httpx
import pytest

from service.errors import TooLarge
from service.protocols.forms import MAX_FIELD_BYTES, read_form
from tests.asgi import body_part, request
from tests.service.protocols.test_native import PNG, SAMPLE, upload

FORMS = ("/classify", "/denoise", "/v1/models/fashion-mnist:predict")
BOUNDARY = "multipart/form-data; boundary=x"


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (BOUNDARY, b""),
        (BOUNDARY, b"junk"),
        (BOUNDARY, b"--x\r\nno header\r\n\r\n--x--\r\n"),
        ("multipart/form-data", SAMPLE),
        ("multipart/form-data; boundary=", SAMPLE),
    ],
)
def test_malformed_form_is_refused(
    client: httpx.Client, path: str, content_type: str, body: bytes
) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("path", FORMS)
def test_missing_part_is_named(client: httpx.Client, path: str) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\n1\r\n--x--\r\n'
    headers = {"Content-Type": BOUNDARY}
    answer = client.post(path, content=b"--x--\r\n", headers=headers)
    assert answer.status_code == 400
    assert "a part named image" in answer.json()["error"]
    answer = client.post(path, content=form, headers=headers)
    assert answer.status_code == 400
    assert "'other'" in answer.json()["error"]


@pytest.mark.parametrize("path", FORMS)
def test_url_in_place_of_a_file_is_not_fetched(client: httpx.Client, path: str) -> None:
    url = f"{client.base_url}/livez"
    answer = client.post(path, files={"image": (None, url)})
    assert answer.status_code == 415
    assert f"got {len(url)} bytes of another type" in answer.json()["error"]


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("kind", [None, "image/png", "text/plain; charset=utf-16"])
def test_image_needs_no_filename(client: httpx.Client, path: str, kind: str | None) -> None:
    files = {"image": (None, SAMPLE, kind)}  # of more bytes than a field may have
    assert client.post(path, files=files).content == client.post(path, files=upload(SAMPLE)).content


@pytest.mark.parametrize("path", FORMS)
def test_form_that_is_cut_says_so(client: httpx.Client, path: str) -> None:
    whole = httpx.Request("POST", "http://x", files=upload(SAMPLE))
    headers = {"Content-Type": whole.headers["content-type"]}
    for end in (-5, -100, 120):
        answer = client.post(path, content=whole.read()[:end], headers=headers)
        assert answer.status_code == 400
        assert "ends before its closing boundary" in answer.json()["error"]


@pytest.mark.parametrize("charset", ["utf-8", "US-ASCII", "ISO-8859-1", ""])
def test_field_may_name_its_charset(client: httpx.Client, charset: str) -> None:
    kind = f"text/plain; charset={charset}"
    files = upload(SAMPLE) | {"model": (None, b"fashion-mnist-mlp", kind)}
    assert client.post("/classify", files=files).json()["model"] == "fashion-mnist-mlp"


def test_field_in_another_charset_is_refused_by_name(client: httpx.Client) -> None:
    text = "fashion-mnist-mlp".encode("utf-16")
    files = upload(SAMPLE) | {"model": (None, text, "text/plain; charset=UTF-16")}
    answer = client.post("/classify", files=files)
    assert answer.status_code == 400
    assert "in UTF-8, got charset 'utf-16'" in answer.json()["error"]


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (b"fashion-mnist-mlp", "text/plain"),
        (b'"fashion-mnist-mlp"', "application/json"),
        (b"fashion-mnist-mlp", "application/json"),
    ],
)
def test_small_file_is_read_as_a_text_field(client: httpx.Client, model: bytes, kind: str) -> None:
    # Swagger's page and other makers of forms send a text field with a filename.
    files = upload(SAMPLE) | {"model": ("blob", model, kind), "top_k": ("blob", b"2", kind)}
    answer = client.post("/classify", files=files)
    assert answer.json()["model"] == "fashion-mnist-mlp"
    assert len(answer.json()["top"]) == 2


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"x" * MAX_FIELD_BYTES, "unknown model 'xxxx"),
        (b"x" * (MAX_FIELD_BYTES + 1), "field model as text of at most 1024 bytes, got more"),
        (SAMPLE, "field model as text in UTF-8, got other bytes"),
    ],
)
def test_file_of_more_than_a_fields_size_is_no_field(
    client: httpx.Client, content: bytes, error: str
) -> None:
    answer = client.post("/classify", files=upload(SAMPLE) | {"model": ("blob", content)})
    assert answer.status_code == (404 if len(content) == MAX_FIELD_BYTES else 400)
    assert error in answer.json()["error"]


@pytest.mark.parametrize(
    ("sent", "model"),
    [
        ("fashion-mnist-mlp", "fashion-mnist-mlp"),
        ('"fashion-mnist-mlp"', "fashion-mnist-mlp"),
        ("null", "fashion-mnist"),
    ],
)
def test_text_field_may_be_json(client: httpx.Client, sent: str, model: str) -> None:
    answer = client.post("/classify", files=upload(SAMPLE), data={"model": sent})
    assert answer.json()["model"] == model


@pytest.mark.parametrize("sent", ['"', '"nope', "nope", '"nope"', '"null"', "[]", "{}", " null"])
def test_text_field_that_is_no_json_is_taken_as_it_is(client: httpx.Client, sent: str) -> None:
    answer = client.post("/classify", files=upload(SAMPLE), data={"model": sent})
    assert answer.status_code == 404


@pytest.mark.parametrize("path", ["/classify", "/denoise"])
@pytest.mark.parametrize("field", ["colour", "Model", "images", ""])
def test_unknown_field_is_named(client: httpx.Client, path: str, field: str) -> None:
    answer = client.post(path, files=upload(SAMPLE), data={field: "1"})
    assert answer.status_code == 400
    assert repr(field) in answer.json()["error"]
    assert "expected one of image, model" in answer.json()["error"]


def test_repeated_field_is_refused(client: httpx.Client) -> None:
    answer = client.post("/classify", files=upload(SAMPLE), data={"top_k": ["1", "2"]})
    assert answer.status_code == 400
    assert answer.json()["error"] == "expected field top_k once, got it twice"


def test_two_images_are_too_many_for_classify(client: httpx.Client) -> None:
    files = [("image", ("a.png", SAMPLE))] * 2
    assert client.post("/classify", files=files).status_code == 413


@pytest.mark.parametrize("path", ["/classify", "/denoise"])
@pytest.mark.parametrize("content_type", ["application/json", "image/png", "text/plain"])
def test_form_routes_take_only_forms(client: httpx.Client, path: str, content_type: str) -> None:
    answer = client.post(path, content=SAMPLE, headers={"Content-Type": content_type})
    assert answer.status_code == 415
    assert content_type in answer.json()["error"]


@pytest.mark.parametrize("content_type", ["application/json", "text/html", "video/mp4"])
def test_predict_refuses_other_content_types(client: httpx.Client, content_type: str) -> None:
    path = "/v1/models/fashion-mnist:predict"
    answer = client.post(path, content=SAMPLE, headers={"Content-Type": content_type})
    assert answer.status_code == 415
    assert content_type in answer.json()["error"]
    assert client.post(path, content=SAMPLE, headers=PNG).status_code == 200


def test_images_beyond_the_limit_are_not_read() -> None:
    one = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n1\r\n'
    pieces = [body_part(one * 2, more=True), *[body_part(one * 1000, more=True)] * 100]
    asked = request(*pieces, headers={"Content-Type": BOUNDARY})
    with pytest.raises(TooLarge, match="expected at most 1, got 2 or more"):
        asyncio.run(read_form(asked, (), max_images=1, max_bytes=10_000_000))
