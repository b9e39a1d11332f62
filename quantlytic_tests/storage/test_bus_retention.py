"""What the local bus forgets: ticks, after some days, without anybody who reads it being told another offset."""

from quantlytic_assets.storage.bus import LocalBus, bars_topic, ticks_topic

DAY = 86_400.0


def test_old_ticks_go_when_newer_ones_come_and_bars_stay(tmp_path):
    now = [1_700_000_000.0]
    bus = LocalBus(tmp_path, ticks_hours=72, clock=lambda: now[0])
    ticks, bars = ticks_topic("live"), bars_topic("live")
    for day in range(5):
        for topic in (ticks, bars):
            bus.publish(topic, [b"%d" % day] * 10, [None] * 10, {})
        now[0] += DAY
    # Those of the first day were four days old when the last ones came.
    assert (bus.watermarks(ticks), bus.watermarks(bars)) == ({0: (10, 50)}, {0: (0, 50)})
    assert bus.read(ticks, 0, 10, 50).values[0] == b"1"
    # However long nothing comes, offsets go on where they were.
    now[0] += 100 * DAY
    bus.publish(ticks, [b"new"], [None], {})
    assert bus.watermarks(ticks) == {0: (50, 51)}
    assert LocalBus(tmp_path).read(ticks, 0, 50, 51).values == [b"new"]
