{# The run's clean bars, and when their session opens, pauses, resumes and closes. Nothing outside the range. #}
with bars as (
    select symbol, session, open_time, close_time, open, high, low, close, volume, available_at
    from {{ source('clean', 'bars') }}
    where {{ in_run_range() }}
),

sessions as (
    select
        session,
        epoch_us(open_time) as session_opens,
        epoch_us(break_start) as break_starts,
        epoch_us(break_end) as break_ends,
        epoch_us(close_time) as session_closes
    from {{ source('clean', 'sessions') }}
    where {{ in_run_range() }}
)

select bars.*, sessions.* exclude (session)
from bars
join sessions on sessions.session = bars.session
