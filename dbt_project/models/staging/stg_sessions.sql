{# When the run's sessions open, pause, resume and close; microseconds since 1970 UTC. #}
select
    session,
    epoch_us(open_time) as session_opens,
    epoch_us(break_start) as break_starts,
    epoch_us(break_end) as break_ends,
    epoch_us(close_time) as session_closes
from {{ source('clean', 'sessions') }}
where {{ in_run_range() }}
