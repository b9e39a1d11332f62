{{ config(
    materialized='range_table',
    partitioned_by='dataset, "interval", year(label_session)',
    span=['session', 'label_session'],
    pre_hook=[
        "{{ make_run_groups(['session', 'label_session']) }}",
        "{{ make_surroundings(before=longest_horizon() + 1, after=longest_horizon() + 1) }}",
    ],
) }}
{#
  A label belongs to the session in which it became known. A run makes every label whose stretch, from the decision to
  the exit, touches its range: those that end in it, and, where later bars are already there, those that start in it.
  None goes on from one company's bars to those of the next under the same ticker, and a split on the way is no return.
#}
{%- set run = run_range() -%}
{%- if not run.horizons %}
select dataset, symbol, session from {{ ref('bars') }} where false
{%- else %}
{#- Rows of before `listing` and `shares` existed have nothing there. -#}
{%- set columns -%}
    symbol, session, "interval", open_time, available_at,
    coalesce(listing, symbol) as listing, open * coalesce(shares, 1) as value
{%- endset %}
with bars as (
    select {{ columns }}
    from {{ ref('bars') }}
    where {{ in_run_range() }} and "interval" in ({{ quoted_list(run.intervals) }})
    union all
    select {{ columns }} from surroundings
)

{% for horizon in run.horizons %}
select * exclude (listing, exit_listing) from (
    select
        '{{ run.dataset }}' as dataset, symbol, session, "interval", {{ horizon }} as horizon, open_time, available_at,
        lead(open_time, 1) over bars_on as entry_time,
        lead(open_time, {{ horizon + 1 }}) over bars_on as exit_time,
        lead(value, {{ horizon + 1 }}) over bars_on / lead(value, 1) over bars_on - 1 as forward_return,
        cast(forward_return > 0 as integer) as label,
        lead(session, {{ horizon + 1 }}) over bars_on as label_session,
        lead(available_at, {{ horizon + 1 }}) over bars_on as label_available_at,
        listing,
        lead(listing, {{ horizon + 1 }}) over bars_on as exit_listing
    from bars
    window bars_on as (partition by symbol, "interval" order by open_time)
)
where {{ in_run_range('session', 'label_session') }} and exit_listing = listing
{{ 'union all' if not loop.last }}
{% endfor %}
{%- endif %}
