{# Native bars of the run's sessions that are known not to have traded: a bucket without them lacks nothing. #}
select missing.symbol, sessions.*, opens
from (
    select symbol, session, unnest(missing_ranges) as hole from {{ source('clean', 'coverage') }}
    where {{ in_run_range() }}
) as missing
cross join unnest(generate_series(
    epoch_us(hole."start"), epoch_us(hole."end") - 1, {{ interval_seconds(run_range().native) * 1000000 }}
)) as slots(opens)
join {{ ref('stg_sessions') }} as sessions on sessions.session = missing.session
where hole.cause = 'no_trade'
