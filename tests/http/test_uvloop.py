"""The scenarios that depend most on the loop's TLS and transports, once more under uvloop."""

from __future__ import annotations

import asyncio

import pytest

from tests.http import test_alerts, test_healing, test_pool, test_pool_time, test_trouble

pytest.importorskip("uvloop", reason="install uvloop (pip install 'fanout-push[speed]')")

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


test_answer = test_pool.test_a_request_is_answered
test_close = test_pool.test_closing_resolves_what_is_pending_and_leaves_nothing
test_cancel = test_pool.test_a_cancelled_caller_resets_its_stream_and_no_other
test_back_pressure = test_pool.test_a_server_that_does_not_read_stops_us_and_memory_stays_bounded
test_blocked = test_pool_time.test_after_a_blocked_loop_answers_go_before_deadlines
test_unblocked = test_pool_time.test_after_a_blocked_loop_deadlines_go_on
test_windows = test_pool.test_an_interrupted_exchange_of_many_sizes_goes_through_small_windows
test_goaway = test_healing.test_goaway_excludes_some_awaits_the_rest_and_the_pool_goes_on
test_storm = test_healing.test_in_a_storm_of_goodbyes_everything_arrives_once
test_loss = test_healing.test_a_lost_connection_is_replaced_and_its_requests_are_in_doubt
test_half_close = test_healing.test_half_closing_is_the_end
test_refused = test_trouble.test_while_nothing_listens_a_connect_a_second_answers_all_who_wait_for_it
test_untrusted = test_trouble.test_a_certificate_that_nobody_vouches_for_is_refused
test_other_name = test_trouble.test_a_certificate_for_another_name_is_refused
test_no_http2 = test_trouble.test_a_server_without_http2_is_told_apart
test_handshake = test_trouble.test_a_handshake_that_hangs_is_given_up
test_closing_midway = test_trouble.test_closing_in_the_middle_of_a_handshake_leaves_nothing
test_silence = test_trouble.test_a_silent_gateway_is_found_out_by_a_ping_within_fifteen_seconds
test_refused_certificate = test_alerts.test_what_openssl_says_of_a_client_certificate
test_breach = test_trouble.test_a_gateway_that_breaks_the_protocol_is_told_and_left


async def test_this_is_uvloop() -> None:
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
