from pathlib import Path

import pytest

pytest.importorskip("keras", reason="precision is a policy of Keras")

from training import precision


def test_gpu_computes_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "count_gpus", lambda: 1)
    assert precision.best_policy() == "mixed_float16"


@pytest.mark.parametrize(
    ("flags", "policy"),
    [
        ("flags : fpu avx512f avx512_bf16 sse", "mixed_bfloat16"),
        ("Features : fp asimd bf16", "mixed_bfloat16"),
        ("flags : fpu avx2 not_avx512_bf16_at_all", "float32"),
    ],
)
def test_processor_computes_in_bfloat16_where_it_has_instructions_for_it(
    flags: str, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "count_gpus", lambda: 0)
    monkeypatch.setattr(Path, "read_text", lambda path: f"processor : 0\n{flags}\n")
    assert precision.best_policy() == policy
