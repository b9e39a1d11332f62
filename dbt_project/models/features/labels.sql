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
  None goes on from one company's bars to those of the next under the same ticker.
#}
{%- set run = run_range() -%}
{%- if not run.horizons %}
select dataset, symbol, session from {{ ref('bars') }} where false
{%- else %}
with bars as (
    select symbol, session, "interval", open_time, open, available_at
    from {{ ref('bars') }}
    where {{ in_run_range() }} and "interval" in ({{ quoted_list(run.intervals) }})
    union all
    select symbol, session, "interval", open_time, open, available_at from surroundings
)

, handovers as (
    select symbol, session as handed_over from {{ source('clean', 'corporate_actions') }}
    where dataset = '{{ run.dataset }}' and kind = 'rename'
    union
    select new_symbol, session from {{ source('clean', 'corporate_actions') }}
    where dataset = '{{ run.dataset }}' and kind = 'rename'
)

{% for horizon in run.horizons %}
select made.* from (
    select
        '{{ run.dataset }}' as dataset, symbol, session, "interval", {{ horizon }} as horizon, open_time, available_at,
        lead(open_time, 1) over bars_on as entry_time,
        lead(open_time, {{ horizon + 1 }}) over bars_on as exit_time,
        lead(open, {{ horizon + 1 }}) over bars_on / lead(open, 1) over bars_on - 1 as forward_return,
        cast(forward_return > 0 as integer) as label,
        lead(session, {{ horizon + 1 }}) over bars_on as label_session,
        lead(available_at, {{ horizon + 1 }}) over bars_on as label_available_at
    from bars
    window bars_on as (partition by symbol, "interval" order by open_time)
) as made
anti join handovers
    on handovers.symbol = made.symbol
    and handovers.handed_over > made.session and handovers.handed_over <= made.label_session
where {{ in_run_range('session', 'label_session') }}
{{ 'union all' if not loop.last }}
{% endfor %}
{%- endif %}
