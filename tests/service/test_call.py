import math

from service.call import Call


def test_stages_are_summed_over_the_images_of_a_request() -> None:
    call = Call("v1")
    for stage, seconds in (("decode", 1.0), ("queue", 2.0), ("decode", 0.5)):
        call.stages.append((stage, 0.0, seconds))
    assert call.stages_s() == {"decode": 1.5, "queue": 2.0}


def test_call_has_no_deadline_and_a_caller_who_waits_unless_told() -> None:
    call = Call("v1")
    assert call.deadline == math.inf
    assert not call.is_gone()


def test_deadline_counts_from_the_calls_beginning() -> None:
    call = Call("v1", timeout_s=5)
    assert call.deadline == call.started + 5
