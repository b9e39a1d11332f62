{{ config(
    materialized='range_table',
    span=['session', 'label_session'],
    shared_turn=true,
    pre_hook=[
        "{{ make_run_groups(['session', 'label_session']) }}",
        "{{ make_surroundings(before=longest_horizon() + 1, after=longest_horizon() + 1, delayed=true) }}",
    ],
) }}
{#
  It may come between models that share a turn, and must not end it.

  A label belongs to the session in which it became known. A run makes every label whose stretch, from the decision to
  the exit, touches its range: those that end in it, and, where later bars are already there, those that start in it.
  None goes on from one company's bars to those of the next under the same ticker, and a split on the way is no return.

  The trade is entered where the simulated broker fills an order of that decision (`next_bars` of
  quantlytic_assets/trading/simulated_broker.py): at the open of the first bar that opens at or after `available_at`.
  Where a bar may not be used (macros/usable_bars.sql) there is no label that is decided on it, enters or leaves there.
#}
{%- set run = run_range() -%}
{%- if not run.horizons %}
select dataset, symbol, session from {{ ref('bars') }} where false
{%- else %}
{#- Rows of before `listing` and `shares` existed have nothing there. -#}
{%- set columns -%}
    symbol, session, "interval", open_time, available_at,
    coalesce(listing, symbol) as listing, open * coalesce(shares, 1) as value, {{ usable_bar() }} as usable
{%- endset %}
with bars as (
    select {{ columns }}
    from {{ ref('bars') }}
    where {{ in_run_range() }} and "interval" in ({{ quoted_list(run.intervals) }})
    union all
    select {{ columns }} from surroundings
)

{% for horizon in run.horizons %}
select
    '{{ run.dataset }}' as dataset, decided.symbol, decided.session, decided."interval", {{ horizon }} as horizon,
    decided.open_time, decided.available_at, entry_time, exit_time,
    exit_value / entry_value - 1 as forward_return,
    cast(forward_return > 0 as integer) as label,
    label_session, label_available_at
from bars as decided
asof join (
    select
        symbol, "interval", open_time as entry_time, value as entry_value, usable as entry_usable,
        lead(open_time, {{ horizon }}) over bars_on as exit_time,
        lead(value, {{ horizon }}) over bars_on as exit_value,
        lead(usable, {{ horizon }}) over bars_on as exit_usable,
        lead(listing, {{ horizon }}) over bars_on as exit_listing,
        lead(session, {{ horizon }}) over bars_on as label_session,
        lead(available_at, {{ horizon }}) over bars_on as label_available_at
    from bars
    window bars_on as (partition by symbol, "interval" order by open_time)
) as entries
    on entries.symbol = decided.symbol and entries."interval" = decided."interval"
    and decided.available_at <= entries.entry_time
where decided.session < date '{{ run.end }}' and label_session >= date '{{ run.start }}'
    and usable and entry_usable and exit_usable and exit_listing = listing
{{ 'union all' if not loop.last }}
{% endfor %}
{%- endif %}
